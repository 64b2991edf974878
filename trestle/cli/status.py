"""The terminal of `trestle up`: what the services say, line by line, and below it one line that says how they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from typing import Final

from trestle.cli.http import GatewayError, request

_EVERY: Final = 2.0
_PATIENCE: Final = 5.0
_CLEAR: Final = "\r\033[K"


class Status:
    """live: there is a terminal to draw on; else lines are printed as they come, and nothing more."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""
        self._began = time.monotonic()

    def say(self, line: str) -> None:
        """A line of a service."""
        if self._shown:
            print(f"{_CLEAR}{line}\n{self._shown}", end="", flush=True)
        else:
            with contextlib.suppress(OSError):  # a disk that is full is no reason to end
                print(line, flush=True)

    async def follow(self, base: str) -> None:
        """Draws the last line anew from time to time; for ever. base: the gateway's URL."""
        while self.live:
            try:
                with await asyncio.to_thread(request, f"{base}/readyz", "", timeout=_PATIENCE) as answer:
                    known = json.load(answer)
                said = "  ".join(f"{name} {'ok' if serves else 'DOWN'}" for name, serves in known["workers"].items())
            except (GatewayError, OSError, ValueError, KeyError) as error:
                said = str(error)
            self._draw(f"up {_since(time.monotonic() - self._began)}  {said}")
            await asyncio.sleep(_EVERY)

    def end(self) -> None:
        """Nothing is drawn after this."""
        if self._shown:
            print(_CLEAR, end="", flush=True)
        self._shown = ""
        self.live = False

    def _draw(self, line: str) -> None:
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        text = line if len(line) <= width else f"{line[: width - 3]}..."
        self._shown = text if os.environ.get("NO_COLOR") else f"\033[2m{text}\033[0m"
        print(f"{_CLEAR}{self._shown}", end="", flush=True)


def _since(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"

"""The terminal of `trestle up`: what the services say, line by line, and below it one line that says how they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Mapping
from typing import Final

from trestle.cli.http import GatewayError, open_streams, workers

_EVERY: Final = 2.0
_PATIENCE: Final = 5.0
_CLEAR: Final = "\r\033[K"


class Status:
    """live: there is a terminal to draw on; else lines are printed as they come, and nothing more."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty() and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._shown = ""
        self._began = time.monotonic()
        self._down: set[str] = set()
        self._back: dict[str, float] = {}

    def say(self, line: str) -> None:
        """A line of a service."""
        if self._shown:
            print(f"{_CLEAR}{line}\n{self._shown}", end="", flush=True)
        else:
            with contextlib.suppress(OSError):  # a disk that is full is no reason to end
                print(line, flush=True)

    async def follow(self, base: str, others: Mapping[str, str]) -> None:
        """Draws the last line anew from time to time; for ever. base: the gateway's URL. others: where else it listens,
        as for `metrics`."""
        while self.live:
            said = [f"up {_since(time.monotonic() - self._began)}"]
            try:
                serving = await asyncio.to_thread(workers, base, _PATIENCE)
                if "metrics" in others:
                    count = await asyncio.to_thread(open_streams, f"http://{others['metrics']}", _PATIENCE)
                    said.append(f"{count} open")
            except GatewayError as error:
                said.append(str(error))
            else:
                said += [self._worker(name, serves) for name, serves in serving.items()]
            self._draw("  ".join(said))
            await asyncio.sleep(_EVERY)

    def _worker(self, name: str, serves: bool) -> str:
        now = time.monotonic()
        if not serves:
            self._down.add(name)
            self._back.pop(name, None)
            return f"{name} DOWN"
        if name in self._down:
            self._down.discard(name)
            self._back[name] = now
        return f"{name} ok (back for {_since(now - self._back[name])})" if name in self._back else f"{name} ok"

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

"""Tells when a service should read its configuration again: on SIGHUP, or when a file of it is another one."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Final, TypeAlias

_INTERVAL: Final = 1.0
Stamp: TypeAlias = tuple[int, int, int, int]
"""What differs when a file is another one."""


def stamp(path: Path) -> Stamp | None:
    """Of the file as it is now; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


class Watch:
    """One file. Make it before the file is read, inside a running loop.

    A file is another one when it was written, or replaced, or a link on the way to it leads elsewhere (so does
    Kubernetes change what it mounts from a ConfigMap); one that is gone for a moment is waited for.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = stamp(self._path)
        self._asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)

    async def changed(self) -> None:
        """Returns when there is reason to read the file."""
        while True:
            try:
                async with asyncio.timeout(_INTERVAL):
                    await self._asked.wait()
            except TimeoutError:
                pass
            found = stamp(self._path)
            if self._asked.is_set() or found not in (None, self._known):
                self._asked.clear()
                self._known = found
                return

"""A service's configuration, read again while it serves: on SIGHUP, or when a file of it is another one."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final, TypeAlias

from trestle.config import ConfigError

log: Final = logging.getLogger("trestle")

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
    """Files of a configuration. Make it before they are read, inside a running loop.

    A file is another one when it was written, or replaced, or a link on the way to it leads elsewhere (so does
    Kubernetes change what it mounts from a ConfigMap); one that is gone for a moment is waited for.

    refused: whether what was read last was; what counts then is what was read before.
    """

    def __init__(self, path: Path) -> None:
        self.refused = False
        self._path = path
        self._known = {path: stamp(path)}
        self._asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._asked.set)

    def follow(self, others: Iterable[Path]) -> None:
        """From now on these as well, instead of those before; call it before they are read."""
        self._known = {self._path: self._known[self._path], **{path: stamp(path) for path in others}}

    async def changed(self) -> None:
        """Returns when there is reason to read the files."""
        while True:
            try:
                async with asyncio.timeout(_INTERVAL):
                    await self._asked.wait()
            except TimeoutError:
                pass
            there = {path: found for path in self._known if (found := stamp(path)) is not None}
            if self._asked.is_set() or any(found != self._known[path] for path, found in there.items()):
                self._asked.clear()
                self._known |= there
                return

    async def renew(self, change_over: Callable[[], Awaitable[None]]) -> None:
        """For ever. change_over: reads the files and has a service use what they say; raises `ConfigError`, and then
        nothing has changed."""
        while True:
            await self.changed()
            try:
                await change_over()
            except ConfigError as error:
                self.refused = True
                log.error("the new configuration is refused, the old one stays: %s", error)
            else:
                self.refused = False
                log.info("the configuration has been read anew")

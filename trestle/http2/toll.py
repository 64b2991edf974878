"""What frames cost that ask for work and bring nothing."""

from __future__ import annotations

import asyncio
from typing import Final

from trestle.http2.frames import ENHANCE_YOUR_CALM, ProtocolError

_FREE: Final = 20_000
"""Such frames a second: pings, settings, resets. Who sends more is attacking."""


class Toll:
    """Of one connection."""

    __slots__ = ("_loop", "_paid", "_since")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._paid = 0
        self._since = loop.time()

    def pay(self, frames: int = 1) -> None:
        """For so many. Raises `ProtocolError` for too many of them."""
        self._paid += frames
        if self._paid < _FREE:
            return
        now = self._loop.time()
        if now - self._since < 1:
            raise ProtocolError(ENHANCE_YOUR_CALM, "too many frames that bring nothing")
        self._paid, self._since = 0, now

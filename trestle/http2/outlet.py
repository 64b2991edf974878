"""The way out to the socket: what is written within one turn of the event loop leaves together."""

from __future__ import annotations

import asyncio
from typing import Final, cast

_SOON: Final = 64
_SOON_BYTES: Final = 16 * 1024
"""So many writes, or one of so many bytes, do not wait for others."""


class Outlet(asyncio.Protocol):
    """Of one connection; make it inside a running loop. full: the socket takes nothing more for now."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.full = False
        self._out: list[bytes] = []
        self._rooms: list[asyncio.Future[None]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def put(self, data: bytes) -> None:
        """It leaves with all else that is put here in this turn: to the system a write costs more than all that was
        done to come to it."""
        out = self._out
        out.append(data)
        if len(data) > _SOON_BYTES or len(out) > _SOON:
            self.flush()
        elif len(out) == 1:
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Everything that was put here leaves now."""
        out = self._out
        if out and not self.transport.is_closing():
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def close(self) -> None:
        """Ends the connection, after everything that was put here."""
        self.flush()
        self.transport.close()

    async def room(self) -> None:
        """Returns once the socket takes more, or is gone."""
        room = self.loop.create_future()
        self._rooms.append(room)
        await room

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            if not room.done():
                room.set_result(None)

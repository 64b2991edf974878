"""A connection to one address of a worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from trestle import __version__
from trestle.http2 import frames, hpack
from trestle.http2.connection import CONNECTION_WINDOW, Connection
from trestle.http2.frames import LARGEST_WINDOW, ProtocolError
from trestle.http2.hpack import MAX_LIST_BYTES, Fields
from trestle.http2.messages import PREFIX_BYTES
from trestle.http2.stream import Stream

if TYPE_CHECKING:
    from gateway.rpc.call import Call

LOOK: Final = 10.0
"""Seconds between two looks whether a worker still says anything."""
PATIENCE: Final = 2
"""After 30 seconds without a word it is asked for one, and given up 10 seconds later."""
_USER_AGENT: Final = f"trestle-gateway/{__version__}".encode("ascii")
RECEIVE_WINDOW: Final = 64 * 1024
"""Bytes that a worker may send of one answer before its client has taken any: what a client that reads nothing holds in
memory here."""


class Keeper(Protocol):
    """Who has a connection."""

    def came(self, connection: ClientConnection) -> None:
        """It is there, though nothing has been said on it yet."""

    def stopped(self, connection: ClientConnection) -> None:
        """It takes no more calls. Those that are open may go on."""

    def freed(self, connection: ClientConnection) -> None:
        """It was full of calls, and takes one more call now."""

    def went(self, connection: ClientConnection) -> None:
        """It is no more."""


class ClientConnection(Connection):
    """max_message_bytes: of a response. request_block: headers that every request has. settled_: done once the other
    side has spoken. draining: it takes no new calls. sought: whether its keeper wants to know of room for calls.
    calm: whether it ended because the other side was asked for a sign too often."""

    def __init__(self, authority: bytes, max_message_bytes: int, keeper: Keeper, patience: int = PATIENCE) -> None:
        """authority: whom requests are for. patience: as `Connection` has it, in looks of `LOOK` seconds."""
        super().__init__(RECEIVE_WINDOW, patience)
        self.max_message_bytes = max_message_bytes
        self.request_block = hpack.encode((
            (b":authority", authority),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", _USER_AGENT),
        ))
        self.settled_: asyncio.Future[None] = self.loop.create_future()
        self.draining = False
        self.sought = False
        self.calm = False
        self._keeper = keeper
        self._next = 1
        self._most = LARGEST_WINDOW
        self._looking: asyncio.TimerHandle | None = None

    @property
    def takes_calls(self) -> bool:
        return not self.draining and len(self.streams) < self._most

    def start(self, call: Call, block: bytes, request: bytes) -> None:
        """Sends a request whole. block: its headers."""
        number = self._next
        self._next += 2
        Stream.__init__(call, self, number)
        self.streams[number] = call
        head = frames.headers(number, block, end=False, most=self.frame_bytes)
        if call.fits(len(request) + PREFIX_BYTES):
            call.closed = True
            self.write(head + frames.message(number, request, frames.END_STREAM))
        else:
            self.write(head)
            call.send(request)
        if self._next > LARGEST_WINDOW:
            self.drain()

    def drain(self) -> None:
        """No new calls; it ends with the last open one."""
        if not self.draining:
            self.draining = True
            self._keeper.stopped(self)
        if not self.streams:
            self.close()

    def unmade(self) -> None:
        """Who makes it has given that up. One that is there all the same, for a turn of the loop, uvloop closes without
        a word; asyncio tells of its end as of any other."""
        if self._looking is not None and not self.transport.is_closing():
            self.connection_lost(None)

    # Of a connection.

    def eof_received(self) -> bool:
        self.drain()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.draining = True  # before its calls are told, which may make room for others
        super().connection_lost(exc)

    def give_up(self, code: int, why: str) -> None:
        super().give_up(code, why)
        self.drain()

    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        if self.sought:
            self._free()

    def opening(self) -> bytes:
        self._keeper.came(self)
        self._looking = self.loop.call_later(LOOK, self._look)
        return (
            frames.PREFACE
            + frames.settings({
                frames.ENABLE_PUSH: 0,
                frames.INITIAL_WINDOW_SIZE: RECEIVE_WINDOW,
                frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
            })
            + frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW)
        )

    def settled(self) -> None:
        if not self.settled_.done():
            self.settled_.set_result(None)

    def set(self, name: int, value: int) -> None:
        if name == frames.MAX_CONCURRENT_STREAMS:
            self._most = value
            self._free()

    def opened(self, stream: int) -> bool:
        return 0 < stream < self._next and stream % 2 == 1

    def idle(self) -> None:
        if self.draining:
            self.close()

    def going(self, last: int, code: int) -> None:
        unseen = [each for number, each in self.streams.items() if number > last]
        if code:
            self.why = f"the worker gave it up (HTTP/2 error {code})"
            self.calm = code == frames.ENHANCE_YOUR_CALM
        self.drain()
        for call in unseen:
            self.forget(call)
            call.refused()

    def gone(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        if not self.settled_.done():
            self.settled_.set_exception(ConnectionError(self.why))
            self.settled_.exception()  # whoever waits is told; nobody else need be
        self._keeper.stopped(self)
        self._keeper.went(self)

    def late(self, number: int, stream: Stream | None) -> None:
        """Nothing: it is one of a call that was given up."""

    def headers(self, stream: int, flags: int, fields: Fields) -> None:
        call = self.streams.get(stream)
        if call is not None:
            call.answered(fields, bool(flags & frames.END_STREAM))
        elif not self.opened(stream):
            raise ProtocolError(frames.PROTOCOL_ERROR, "an answer to nothing")

    def _free(self) -> None:
        if self.sought and self.takes_calls:
            self.sought = False
            self._keeper.freed(self)

    def _look(self) -> None:
        self._looking = self.loop.call_later(LOOK, self._look)
        self.look()
        if self.transport.is_closing():
            self.drain()

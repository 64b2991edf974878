"""A connection to one address of a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

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
_PATIENCE: Final = 2
"""After 30 seconds without a word it is asked for one, and given up 10 seconds later."""
_USER_AGENT: Final = f"trestle-gateway/{__version__}".encode("ascii")
RECEIVE_WINDOW: Final = 64 * 1024
"""Bytes that a worker may send of one answer before its client has taken any: what a client that reads nothing holds in
memory here."""


class ClientConnection(Connection):
    """max_message_bytes: of a response. request_block: headers that every request has. settled_: done once the other
    side has spoken. draining: it takes no new calls."""

    def __init__(self, authority: bytes, max_message_bytes: int, changed: Callable[[ClientConnection], None]) -> None:
        """authority: whom requests are for. changed: called when it takes no more calls, and when it is gone."""
        super().__init__(RECEIVE_WINDOW, _PATIENCE)
        self.max_message_bytes = max_message_bytes
        self.request_block = hpack.encode((
            (b":authority", authority),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", _USER_AGENT),
        ))
        self.settled_: asyncio.Future[None] = self.loop.create_future()
        self.draining = False
        self._changed = changed
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
        if self._next > LARGEST_WINDOW:
            self.drain()
        Stream.__init__(call, self, number)
        self.streams[number] = call
        head = frames.headers(number, block, end=False, most=self.frame_bytes)
        if call.fits(len(request) + PREFIX_BYTES):
            call.closed = True
            self.write(head + frames.message(number, request, frames.END_STREAM))
        else:
            self.write(head)
            call.send(request)

    def drain(self) -> None:
        """No new calls; it ends with the last open one."""
        if not self.draining:
            self.draining = True
            self._changed(self)
        if not self.streams:
            self.close()

    # Of a connection.

    def opening(self) -> bytes:
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

    def opened(self, stream: int) -> bool:
        return 0 < stream < self._next and stream % 2 == 1

    def idle(self) -> None:
        if self.draining:
            self.close()

    def going(self, last: int, code: int) -> None:
        for call in [each for number, each in self.streams.items() if number > last]:
            self.forget(call)
            call.refused()
        self.drain()

    def gone(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self.draining = True
        if not self.settled_.done():
            self.settled_.set_exception(ConnectionError(self.why))
            self.settled_.exception()  # whoever waits is told; nobody else need be
        self._changed(self)

    def late(self, number: int, stream: Stream | None) -> None:
        """Nothing: it is one of a call that was given up."""

    def headers(self, stream: int, flags: int, fields: Fields) -> None:
        call = self.streams.get(stream)
        if call is not None:
            call.answered(fields, bool(flags & frames.END_STREAM))
        elif not self.opened(stream):
            raise ProtocolError(frames.PROTOCOL_ERROR, "an answer to nothing")

    def _look(self) -> None:
        self._looking = self.loop.call_later(LOOK, self._look)
        self.look()

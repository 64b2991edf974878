"""One address served over HTTP: aiohttp's server with some habits changed. What is not HTTP is told so in OpenAI's
words, no header is logged, a client that reads nothing is cut off, and there are only so many connections."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl
from termios import TIOCOUTQ
from time import perf_counter
from typing import Any, Final, cast

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import _ErrInfo

from gateway.exchange import Exchange
from gateway.openai.errors import refusal
from gateway.reply import Reply
from trestle.errors import CallError, Reason
from trestle.listening import Listening

log = logging.getLogger("gateway")
_TOO_LARGE: Final = 431
_NOTHING: Final = 1
"""Bytes that may wait in the gateway before a client counts as slower than its answer: with TLS, none would pause for
good where nothing waits."""
_LAST: Final = 1.0
"""Seconds for connections that are cut off at the end to be gone."""
_AT_ONCE: Final = struct.pack("ii", 1, 0)
# What a client beyond the last may take to send the request that is refused.
_PATIENCE: Final = 2.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """max_header_bytes: the longest request line, and the longest header, taken. max_connections: how many there may
    be. head_timeout: seconds that a connection may stand without a request whose head is whole. stall_timeout: seconds
    for which a client may read nothing of its answer. drain_timeout: seconds that open answers have at the end."""

    max_header_bytes: int
    max_connections: int
    head_timeout: float
    stall_timeout: float
    drain_timeout: float


class Listener:
    """answer: what every request is answered with. context: of TLS; None: in the clear. Make it inside a running
    loop."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[Reply]],
        bounds: Bounds,
        context: ssl.SSLContext | None = None,
    ) -> None:
        # aiohttp's low-level server: its application, router and middleware would only cost time.
        self._server = _Server(
            answer,
            bounds,
            handler_cancellation=True,  # a request ends when its client is gone
            access_log=None,
            auto_decompress=False,  # else what nobody has asked for is unpacked too, before it is thrown away
            keepalive_timeout=bounds.head_timeout,  # before the first request, and between two
            max_line_size=bounds.max_header_bytes,
            max_field_size=bounds.max_header_bytes,
        )
        self._listening = Listening(self._server, context)

    async def listen(self, name: str, address: str, *, reuse_port: bool = False) -> str:
        """Serves from now on. name: of the setting that says the address. Returns the address as it turned out,
        `HOST:PORT`. Raises `ConfigError`."""
        return await self._listening.open(name, address, reuse_port=reuse_port)

    async def close(self) -> None:
        """No new connections; returns when the open answers have ended, or their time has, and every connection with
        them."""
        await self._listening.close()
        await asyncio.sleep(0)  # whose request has come by now is answered
        ends = asyncio.get_running_loop().time() + self._server.bounds.drain_timeout
        self._server.pre_shutdown()
        await self._server.shutdown(self._server.bounds.drain_timeout)
        await self._server.left(ends)


class _Server(web.Server):
    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[Reply]], bounds: Bounds, **options: Any
    ) -> None:
        # Of an answer aiohttp asks only what a reply has.
        super().__init__(cast("Any", answer), **options)
        self.bounds = bounds
        self._open: set[Protocol] = set()
        self._emptied = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether there are more connections than there may be."""
        return len(self._connections) > self.bounds.max_connections

    def came(self, connection: Protocol) -> None:
        """It is open from now on."""
        self._open.add(connection)

    def went(self, connection: Protocol) -> None:
        """It is gone."""
        self._open.discard(connection)
        if not self._open:
            self._emptied.set()

    async def left(self, ends: float) -> None:
        """Returns when every connection is gone. ends: when those are cut off that have not taken their last bytes,
        which TLS keeps for itself; of the loop's time. An event loop may not end while they are there: uvloop's would
        wait for them for good."""
        if not await self._gone_by(ends):
            for connection in tuple(self._open):
                connection.cut_off()
            await self._gone_by(self._loop.time() + _LAST)

    async def _gone_by(self, ends: float) -> bool:
        self._emptied.clear()
        try:
            async with asyncio.timeout_at(ends):
                if self._open:
                    await self._emptied.wait()
        except TimeoutError:
            return False
        return True

    def __call__(self) -> web.RequestHandler:
        return Protocol(self, loop=self._loop, **self._kwargs)


async def _refuse(request: web.BaseRequest) -> Reply:
    full = "The gateway has as many connections as it may; try again shortly."
    exchange = Exchange(request, {})
    response = exchange.fail(CallError(Reason.OVERLOADED, full, code="overloaded", retry_after=1.0))
    response.force_close()
    return response


class Protocol(web.RequestHandler):
    """One connection. stalled: its client was cut off because it read nothing. lost: when it was gone, of
    `time.perf_counter`; zero until then."""

    __slots__ = ("_body", "_left", "_pipe", "_server", "_stalling", "lost", "stalled")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self.stalled = False
        self.lost = 0.0
        self._server = server
        self._pipe: asyncio.Transport | None = None  # until it is gone; aiohttp's is None once it is to be closed
        self._stalling: asyncio.TimerHandle | None = None
        self._left = 0
        self._body: StreamReader | None = None  # of the last request that came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._pipe = cast("asyncio.Transport", transport)
        self._server.came(self)
        # Writing pauses as soon as the kernel does not take all. So an answer has ended only when it has all of it, and
        # who reads too little is seen, whatever the answer's size.
        self._pipe.set_write_buffer_limits(high=_NOTHING)
        if self._server.full and self.transport is not None:
            log.warning("there are %d connections, and no more may be", self._server.bounds.max_connections)
            # It is heard first: an answer to a request that was not read is lost with the connection.
            self._request_handler = cast("Any", _refuse)
            self._loop.call_later(_PATIENCE, self.transport.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Its client is gone."""
        self.lost = perf_counter()
        self._body = None
        self._pipe = None
        self._server.went(self)
        self._read_again()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The client sent this. aiohttp keeps what is no HTTP for the next answer; who waits for the rest of a body has
        to be told, or waits for its whole time. And at the end it hears nothing more, not even the rest of a body."""
        if self._close or self._force_close:
            if self._body is None or self._body.is_eof():
                return
            ending = self._close, self._force_close
            self._close = self._force_close = False
            try:
                super().data_received(data)
            finally:
                self._close, self._force_close = ending
        else:
            super().data_received(data)
        if not self._messages:
            return
        message, body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            self._body = body
        elif self._body is not None and not self._body.is_eof():
            self._body.set_exception(web.RequestPayloadError("the body breaks off"))

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """A body that cannot be read is the client's own fault: it has been told so."""
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kwargs)

    def pause_writing(self) -> None:
        """The client is slower than its answer."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._read_again()
        super().resume_writing()

    def _watch(self) -> None:
        if self._pipe is not None:
            self._left = self._unread(self._pipe)
            self._stalling = self._loop.call_later(self._server.bounds.stall_timeout, self._look)

    def _look(self) -> None:
        if self._pipe is None:
            return
        if self._unread(self._pipe) < self._left:
            self._watch()
            return
        self.stalled = True
        log.warning("a client has read nothing for %g s: cut off", self._server.bounds.stall_timeout)
        self.cut_off()

    def cut_off(self) -> None:
        """It ends now. What the kernel holds for the client goes with it, else it would keep that for who may never
        read."""
        if self._pipe is not None:
            with suppress(OSError):  # it is being cut off already
                self._pipe.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self._pipe.abort()

    @staticmethod
    def _unread(transport: asyncio.Transport) -> int:
        """Bytes of the answer that the client's side has not taken. The kernel, which takes more of them only once it
        has room for many, holds some: seen without it, who reads slowly reads nothing for a while."""
        held = ioctl(transport.get_extra_info("socket").fileno(), TIOCOUTQ, b"\0" * 4)
        return transport.get_write_buffer_size() + int.from_bytes(held, sys.byteorder)

    def _read_again(self) -> None:
        if self._stalling is not None:
            self._stalling.cancel()
            self._stalling = None

    def handle_error(  # type: ignore[override]
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Reply:
        """The answer to what never became a request. aiohttp's own quotes what it could not read, to the client and in
        the log, and that may be a key."""
        exchange = Exchange(request, {})
        log.info("not a request: %s", type(exc).__name__, extra=exchange.log_fields())
        if isinstance(exc, LineTooLong):
            said = refusal(_TOO_LARGE, "The request's line or a header of it is too long.", "header_too_large")
        elif status == web.HTTPInternalServerError.status_code:
            said = refusal(status, "The gateway failed.", "internal_error")
        else:
            said = refusal(status, "This is not an HTTP request that can be read.", "bad_request")
        response = exchange.answer(said.body, said.status, said.headers)
        response.force_close()
        return response

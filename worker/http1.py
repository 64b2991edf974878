"""HTTP/1.1 to an upstream: connections, their pool, and one exchange on each at a time.

A few lines of our own in the place of a library, because this is the hottest path that the worker has: aiohttp's client
costs five times as much (docs/decisions/0005). The parser is llhttp (httptools), TLS and DNS are the event loop's.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Callable
from typing import Final, TypeAlias, cast

import httptools

Origin: TypeAlias = tuple[bool, str, int]
"""Whether TLS is spoken, host, port."""
Taker: TypeAlias = Callable[[bytes], bool]
"""Takes bytes of a body; returns whether more may follow at once."""

HIGH_WATER: Final = 64 * 1024
"""Bytes of a body that may wait to be read before the upstream is made to wait."""
_MAX_HEAD: Final = 256 * 1024
_MAX_UNZIPPED: Final = 16 * 1024 * 1024
"""Bytes that one read of a compressed body may become."""
_IDLE_SECONDS: Final = 30.0
_INTERIM: Final = 200


class Connection(asyncio.Protocol):
    """One connection. `begin` sends a request; then `head` says that status and headers are there, `take` gives what
    came of the body, `ended` that it is all, `lost` that nothing more comes; `wait` returns when one of them may have
    changed.

    framed: the body's end is one of its own, not merely the connection's. timed_out: lost because nothing came in time.
    broken: lost because what came is not HTTP.
    """

    __slots__ = (
        "_busy",
        "_due",
        "_head_bytes",
        "_held",
        "_keep",
        "_loop",
        "_parser",
        "_patience",
        "_paused",
        "_pieces",
        "_pool",
        "_taker",
        "_timer",
        "_transport",
        "_unzip",
        "_waiter",
        "broken",
        "ended",
        "framed",
        "head",
        "headers",
        "lost",
        "origin",
        "status",
        "timed_out",
    )

    def __init__(self, pool: Pool, origin: Origin) -> None:
        self.origin = origin
        self.lost = False
        self._loop = pool.loop
        self._pool = pool
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._waiter: asyncio.Future[bool] | None = None
        self._taker: Taker | None = None
        self._patience = 0.0
        self._paused = False
        self._reset()
        self._busy = False

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._held = 0
        self._head_bytes = 0
        self._keep = False
        self._busy = True
        self._unzip: zlib._Decompress | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head = self.ended = self.framed = self.timed_out = self.broken = False

    # The exchange, from the caller's side.

    def begin(self, head: bytes, body: bytes, timeout: float) -> None:
        """Sends a request; its head is to be answered within `timeout` seconds."""
        self._reset()
        if len(body) > HIGH_WATER:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)
        self.expect(timeout)

    def expect(self, seconds: float) -> None:
        """From now on something must come within so many seconds, as long as somebody waits for it."""
        self._due = self._loop.time() + seconds
        # A timer that fires too early looks again: cheaper than a new one for each read.
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._check)
        elif self._timer.when() > self._due:
            self._timer.cancel()
            self._timer = self._loop.call_at(self._due, self._check)

    async def wait(self) -> None:
        """Until something has changed."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def pass_to(self, taker: Taker, seconds: float) -> bool:
        """Until something has changed, or the taker wants no more, for which it returns False. Bytes of the body that
        come meanwhile are the taker's, at once; within so many seconds some must. Raises what the taker raises."""
        self._patience = seconds
        self.expect(seconds)
        self._waiter = self._loop.create_future()
        self._taker = taker
        try:
            return await self._waiter
        finally:
            self._waiter = self._taker = None

    @property
    def readable(self) -> bool:
        """Whether there is something to take."""
        return bool(self._pieces)

    def take(self) -> bytes:
        """What has come of the body."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._held = 0
        if self._paused:
            self._paused = False
            if not self.lost:
                self._transport.resume_reading()
        return data

    def release(self) -> None:
        """The exchange is over: the connection serves again if the answer was read to its end, else it is closed."""
        if not self._busy:
            return
        self._busy = False
        self._pieces.clear()
        if self.lost:
            return
        if self.ended and self._keep and not self._paused:
            self.expect(_IDLE_SECONDS)
            self._pool.give(self)
        else:
            self.abort()

    def abort(self) -> None:
        """Closes the connection at once."""
        if not self.lost:
            self._transport.abort()

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._busy or self.ended:
            self.abort()  # nobody asked for this
            return
        if not self.head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
            if not self.head and self._head_bytes > _MAX_HEAD:
                raise httptools.HttpParserError("the head is too large")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, zlib.error):
            self.broken = True
            self._keep = False
            self._transport.abort()
        if self._taker is not None and self._pieces and self._waits:
            self._hand_on(self._taker)
        elif self._held > HIGH_WATER and not self._paused and not self.ended:
            self._paused = True
            self._transport.pause_reading()
        if self.head and (self._taker is None or self.ended):
            self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._busy and self.head and not self.ended and not self.framed and exc is None and not self.broken:
            self.ended = True  # a body that only the connection's close ends
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._busy:
            self._pool.forget(self)
        self._wake()

    def _check(self) -> None:
        self._timer = None
        if self._loop.time() < self._due - 0.001:
            self._timer = self._loop.call_at(self._due, self._check)
        elif not self._busy:
            self.abort()  # idle for long enough
        elif self._waits:  # else something came, or the caller takes its time
            self.timed_out = True
            self._transport.abort()

    def _hand_on(self, taker: Taker) -> None:
        """What has come is the taker's."""
        waiter = self._waiter
        assert waiter is not None
        try:
            if taker(self.take()):
                self._due = self._loop.time() + self._patience  # the timer looks at it when it fires
            else:
                waiter.set_result(False)
        except BaseException as error:  # noqa: BLE001 (for who waits)
            waiter.set_exception(error)

    @property
    def _waits(self) -> bool:
        """Whether somebody waits."""
        return self._waiter is not None and not self._waiter.done()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    # The parser's side.

    def on_message_begin(self) -> None:
        if self.ended:
            self._keep = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.ended:
            return
        key = name.decode("latin-1").lower()
        text = value.decode("utf-8", "surrogateescape")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < _INTERIM:
            self.headers = {}
            return
        self.status = status
        headers = self.headers
        self.framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()
        coding = headers.get("content-encoding", "").lower()
        if coding in ("gzip", "x-gzip", "deflate"):  # unasked for
            self._unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self.head = True

    def on_body(self, data: bytes) -> None:
        if self.ended:
            return
        if self._unzip is not None:
            data = self._unzip.decompress(data, _MAX_UNZIPPED)
            if self._unzip.unconsumed_tail or self._held > _MAX_UNZIPPED:
                raise zlib.error("a small body becomes too large a one")
        if data:
            self._pieces.append(data)
            self._held += len(data)

    def on_message_complete(self) -> None:
        if self.status and not self.ended:
            self._keep = self._parser.should_keep_alive()
            self.ended = True


class Pool:
    """The idle connections of one upstream, by origin. Make it inside a running loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._idle: dict[Origin, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection that is still there, the one used last; None for none."""
        free = self._idle.get(origin)
        while free:
            connection = free.pop()
            if not connection.lost:
                return connection
        return None

    def give(self, connection: Connection) -> None:
        """Takes a connection that can serve again."""
        self._idle.setdefault(connection.origin, []).append(connection)

    def forget(self, connection: Connection) -> None:
        """An idle connection is gone."""
        free = self._idle.get(connection.origin)
        if free and connection in free:
            free.remove(connection)

    async def connect(self, origin: Origin, timeout: float) -> Connection:
        """A new connection. Raises TimeoutError, and OSError (ssl.SSLError among them)."""
        tls, host, port = origin
        if tls and self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        async with asyncio.timeout(timeout):
            _, connection = await self.loop.create_connection(
                lambda: Connection(self, origin), host, port, ssl=self._tls if tls else None
            )
        return connection

    def close(self) -> None:
        """Closes what is idle."""
        for free in self._idle.values():
            for connection in tuple(free):
                connection.abort()
        self._idle.clear()

"""The worker's HTTP client: one upstream, its connections, and one answer at a time, read only as fast as it is asked.

Everything that can go wrong on the wire leaves here as a `CallError`. A redirect is an answer like any other: it is
never followed.
"""

from __future__ import annotations

import asyncio
import copy
import errno
from collections.abc import Iterable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Generic
from urllib.parse import quote, urlsplit

from trestle.capacity import Capacity
from trestle.errors import CallError, Reason
from worker.credentials import Tokens
from worker.family import HttpRequest, U, Upstream
from worker.http1 import Connection, Origin, Pool, Taker
from worker.retry import Retries

if TYPE_CHECKING:
    from worker.tracing import UpstreamSpan

# How long an answer's connection may take to show its end once nothing more is wanted of it; then it is not reused.
_TAIL_SECONDS: Final = 1.0
_MAX_ERROR_BYTES: Final = 64 * 1024


class UpstreamAnswer:
    """The answer to one request: its status and headers, then its body piece by piece.

    headers: names in lower case. clean_end: whether an end of the body is one of its own framing, not just the
    connection's close (WIRE 12a). span: of the request, in a trace; None where there is none. Close it on every way
    out; until its body has been read to the end that closes the connection too, so that the upstream stops.
    """

    __slots__ = ("_connection", "_idle_timeout", "_name", "clean_end", "headers", "span", "status")

    def __init__(self, connection: Connection, name: str, idle_timeout: float) -> None:
        self._connection = connection
        self._name = name
        self._idle_timeout = idle_timeout
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        self.clean_end = connection.framed
        self.span: UpstreamSpan | None = None

    @property
    def ended(self) -> bool:
        """Whether all of the body has arrived."""
        return self._connection.ended

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; `b""` at the end. Raises `CallError` (UPSTREAM_TIMEOUT,
        UPSTREAM_TRUNCATED, UPSTREAM_PROTOCOL) once all that arrived has been read."""
        connection = self._connection
        while not connection.readable:
            if self._is_over():
                return b""
            connection.expect(self._idle_timeout)
            await connection.wait()
        return connection.take()

    async def pass_to(self, taker: Taker) -> bool:
        """Gives the taker what arrives, without a turn of the event loop between, for as long as it returns True.
        Returns False once it has not, True at the end. Raises as `read`, and what the taker raises."""
        connection = self._connection
        while True:
            if connection.readable:
                if not taker(connection.take()):
                    return False
            elif self._is_over():
                return True
            elif not await connection.pass_to(taker, self._idle_timeout):
                return False

    def _is_over(self) -> bool:
        """Whether this is the end, now that nothing is there to be read. Raises as `read`."""
        connection = self._connection
        if connection.ended:
            return True
        if connection.timed_out:
            raise CallError(Reason.UPSTREAM_TIMEOUT, "The upstream fell silent in its answer.", upstream=self._name)
        if connection.broken:
            raise _not_http(self._name)
        if connection.lost:
            raise CallError(Reason.UPSTREAM_TRUNCATED, "The upstream broke off its answer.", upstream=self._name)
        return False

    async def read_all(self, limit: int, first: bytes = b"") -> bytes:
        """The whole body. first: what of it has been read before. Raises `CallError` as `read`, and UPSTREAM_PROTOCOL
        beyond `limit` bytes."""
        pieces: list[bytes] = [first] if first else []
        size = len(first)
        while data := await self.read():
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise self.too_large()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def too_large(self) -> CallError:
        """The answer is larger than it may be."""
        return CallError(
            Reason.UPSTREAM_PROTOCOL, "The upstream's answer is larger than max_answer_bytes.", upstream=self._name
        )

    async def read_error(self) -> bytes:
        """What there is of an error's body, up to 64 KB; a body that breaks off is read as far as it goes."""
        pieces: list[bytes] = []
        size = 0
        try:
            while size < _MAX_ERROR_BYTES and (data := await self.read()):
                pieces.append(data)
                size += len(data)
        except CallError:
            pass
        return b"".join(pieces)

    def close(self) -> None:
        """Gives the connection back if the body was read to its end, else closes it."""
        self._connection.release()
        self.end()

    def end(self) -> None:
        """Nothing more of it matters."""
        if self.span is not None:
            self.span.end()
            self.span = None

    async def finish(self) -> None:
        """After the upstream's terminal event: waits a moment for the body's own end, so that the connection can serve
        again."""
        if not self.ended:
            try:
                async with asyncio.timeout(_TAIL_SECONDS):
                    while await self.read():
                        pass
            except (TimeoutError, CallError):
                pass
        self.close()


class UpstreamClient(Generic[U]):
    """One upstream's connections, and how often and how much it may be asked. borrowed: with a caller's own
    credential. Make it inside a running loop; `close` it
    at the end. tokens: what it is shown as `authorization: Bearer`, where that is not the family's own business."""

    def __init__(self, upstream: Upstream[U], tokens: Tokens | None = None) -> None:
        self.upstream = upstream
        self.borrowed = False
        self._tokens = tokens
        settings = upstream.settings
        self._pool = Pool()
        self.retries = Retries(settings.retries)
        self.capacity: AbstractAsyncContextManager[None] = (
            Capacity(f"The upstream {upstream.name}", settings.max_calls, settings.queue, settings.queue_timeout)
            if settings.max_calls
            else nullcontext()
        )

    @property
    def waiting(self) -> int:
        """How many calls wait until there is room for them."""
        return self.capacity.waiting if isinstance(self.capacity, Capacity) else 0

    def shown(self, credential: str) -> UpstreamClient[U]:
        """The same upstream, asked with a credential that is not ours. Raises `CallError` where it takes none."""
        if not self.upstream.settings.accept_credentials or self._tokens is not None:
            raise CallError(
                Reason.PERMISSION_DENIED,
                f"The upstream {self.upstream.name} takes no credentials but the operator's.",
                code="credential_not_accepted",
            )
        other = copy.copy(self)
        other.upstream = replace(self.upstream, credential=credential)
        other.borrowed = True
        return other

    async def open(self, request: HttpRequest, headers: Mapping[str, str]) -> UpstreamAnswer:
        """Sends the request and waits for the head of its answer.

        headers: beside the request's own. Raises `CallError`: UPSTREAM_UNREACHABLE, UPSTREAM_TIMEOUT,
        UPSTREAM_TRUNCATED (it closed before it answered), UPSTREAM_PROTOCOL (not HTTP), UPSTREAM_CREDENTIAL (no token
        was to be had).
        """
        settings = self.upstream.settings
        token = await self._tokens.token() if self._tokens is not None else ""
        shown = {"authorization": f"Bearer {token}"} if token else {}
        origin, path, host = _split(request.url)
        head = _head(request, path, host, (request.headers, headers, shown))
        connection = self._pool.take(origin) or await self._connect(origin)
        try:
            connection.begin(head, request.body, settings.first_byte_timeout)
            while not connection.head:
                if connection.lost:
                    raise self._unanswered(connection)
                await connection.wait()
        except BaseException:
            connection.release()
            raise
        if connection.status == 401 and self._tokens is not None:
            self._tokens.forget(token)
        return UpstreamAnswer(connection, self.upstream.name, settings.idle_timeout)

    async def close(self) -> None:
        """Closes the connections that are idle."""
        self._pool.close()
        await asyncio.sleep(0)  # their sockets are closed in the loop's next turn

    async def _connect(self, origin: Origin) -> Connection:
        name = self.upstream.name
        try:
            return await self._pool.connect(origin, self.upstream.settings.connect_timeout)
        except TimeoutError as error:
            raise CallError(
                Reason.UPSTREAM_UNREACHABLE, "The upstream could not be reached in time.", upstream=name
            ) from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise CallError(
                    Reason.OVERLOADED, "The worker may open no more files.", upstream=name, retry_after=1.0
                ) from error
            raise CallError(Reason.UPSTREAM_UNREACHABLE, "The upstream could not be reached.", upstream=name) from error

    def _unanswered(self, connection: Connection) -> CallError:
        name = self.upstream.name
        if connection.timed_out:
            return CallError(Reason.UPSTREAM_TIMEOUT, "The upstream did not answer in time.", upstream=name)
        if connection.broken:
            return _not_http(name)
        return CallError(
            Reason.UPSTREAM_TRUNCATED, "The upstream closed the connection without an answer.", upstream=name
        )


def _not_http(upstream: str) -> CallError:
    message = "The upstream's answer is not HTTP as we know it."
    return CallError(Reason.UPSTREAM_PROTOCOL, message, upstream=upstream)


@lru_cache(maxsize=1024)
def _split(url: str) -> tuple[Origin, bytes, bytes]:
    """A URL's origin, what stands in the request line, and the Host header."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    host = parts.hostname or ""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    shown = parts.netloc.rpartition("@")[2]
    return (
        (tls, host, parts.port or (443 if tls else 80)),
        quote(path, safe="/?&=%:@!$'()*+,;~-._[]").encode("ascii"),
        shown.encode("ascii") if shown.isascii() else shown.encode("idna"),
    )


def _head(request: HttpRequest, path: bytes, host: bytes, groups: Iterable[Mapping[str, str]]) -> bytes:
    """The request's head; of headers of one name in several groups the last counts. Raises `CallError` for a header
    that would be more than one."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (request.method.encode("ascii"), path, host)]
    headers = {name.lower(): (name, value) for group in groups for name, value in group.items()}
    for name, value in headers.values():
        line = f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")
        if line.count(b"\n") != 1 or line.count(b"\r") != 1 or b"\0" in line:
            raise CallError(Reason.INVALID_REQUEST, f"The header {name!r} is none.", param=name)
        lines.append(line)
    if request.body or request.method != "GET":
        lines.append(b"content-length: %d\r\n" % len(request.body))
    lines.append(b"\r\n")
    return b"".join(lines)

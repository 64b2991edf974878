"""One call to a worker: its request, its responses, how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import grpc

from trestle.errors import DETAILS_KEY, CallError
from trestle.http2 import frames, hpack
from trestle.http2.hpack import Fields
from trestle.http2.messages import (
    PREFIX_BYTES,
    framed,
    length,
    metadata_block,
    metadata_value,
    status_text,
    timeout_value,
)
from trestle.http2.stream import Stream

if TYPE_CHECKING:
    from gateway.rpc.connection import ClientConnection

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_TRIES: Final = 5
"""How often a call is begun that no worker has seen."""
_TAKE_BACK: Final = 16 * 1024
"""A worker is told that it may send more once so much has been taken."""
_C: Final = grpc.StatusCode
_OF_RESET: Final[Mapping[int, grpc.StatusCode]] = {
    frames.REFUSED_STREAM: _C.UNAVAILABLE,
    frames.CANCEL: _C.CANCELLED,
    frames.ENHANCE_YOUR_CALM: _C.RESOURCE_EXHAUSTED,
}
_OF_HTTP: Final[Mapping[bytes, grpc.StatusCode]] = {
    b"400": _C.INTERNAL,
    b"401": _C.UNAUTHENTICATED,
    b"403": _C.PERMISSION_DENIED,
    b"404": _C.UNIMPLEMENTED,
    b"429": _C.UNAVAILABLE,
    b"502": _C.UNAVAILABLE,
    b"503": _C.UNAVAILABLE,
    b"504": _C.UNAVAILABLE,
}
_TOLD: Final = frozenset((b":status", b"content-type", b"grpc-status", b"grpc-message", b"grpc-encoding"))


class Picker(Protocol):
    """Who has connections."""

    def ready(self, metadata: Metadata) -> ClientConnection | None:
        """One for a call with this metadata; None where none is ready."""

    async def pick(self, metadata: Metadata) -> ClientConnection:
        """One, once it is ready. Raises `CallError` where it seems that none will be."""


class Method:
    """One method of a worker's. name: without its service. response_type: of its responses. Call it to make a call."""

    __slots__ = ("_decode", "_picker", "_request", "name")

    def __init__(self, picker: Picker, service: str, name: str, response_type: Any, scheme: bytes) -> None:
        self._picker = picker
        self.name = name
        self._decode = response_type.FromString
        path = f"/{service}/{name}".encode("ascii")
        self._request = hpack.encode(((b":method", b"POST"), (b":scheme", scheme), (b":path", path)))

    def __call__(self, request: Any, timeout: float, metadata: Metadata) -> Call:
        """A call that has not begun. The request is written now and may change afterwards. timeout: in seconds."""
        return Call(self._picker, self._request, request.SerializeToString(), timeout, metadata, self._decode)


class Call(Stream):
    """Await its one response with `single`, or `read` its responses one by one; `cancel` it on every way out."""

    __slots__ = (
        "_again",
        "_begun",
        "_deadline",
        "_decode",
        "_head",
        "_initial",
        "_metadata",
        "_owed",
        "_picker",
        "_pieces",
        "_request",
        "_responses",
        "_status",
        "_timer",
        "_tries",
        "_waiting",
    )

    def __init__(
        self,
        picker: Picker,
        head: bytes,
        request: bytes,
        timeout: float,
        metadata: Metadata,
        decode: Callable[[bytes], Any],
    ) -> None:
        # A stream it becomes when it is sent.
        self.id = 0
        self._outgoing = b""
        self._picker = picker
        self._head = head
        self._request = request
        self._metadata = metadata
        self._decode = decode
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._begun = False
        self._again = False
        self._tries = 0
        self._pieces: list[bytes] = []
        self._owed = 0
        self._responses: deque[bytes] = deque()
        self._initial: Metadata | None = None
        self._status: tuple[int, str, Metadata] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Future[None] | None = None

    async def single(self) -> Any:
        """The response of a call that has one. Raises `CallError`."""
        response = await self.read()
        if response is None:
            raise CallError.from_status(_C.INTERNAL.value[0], "The worker gave no response.", None)
        await self.read()  # its status, without which the response does not count
        return response

    async def read(self) -> Any:
        """The next response, None at the end. Raises `CallError`, after all that came before it."""
        if not self._begun:
            self._begun = True
            await self._begin()
        while True:
            if self._responses:
                data = self._responses.popleft()
                if self.taken >= _TAKE_BACK and not self._responses:
                    self.give_back()
                return self._decode(data)
            if self._status is not None:
                if self._status[0]:
                    raise error_of(*self._status)
                return None
            if self._again:
                await self._begin()
            else:
                await self._change()

    async def initial_metadata(self) -> Metadata:
        """What the worker said before its first response. Returns once it has."""
        while self._initial is None and self._status is None:
            await self._change()
        return self._initial or ()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._status is not None

    def cancel(self) -> None:
        """Ends it, if it has not ended; who waits for it gets a `CallError`."""
        self._give_up(_C.CANCELLED, "The gateway has no more use for it.")

    # The connection's side.

    def send(self, request: bytes) -> None:
        """Sends the request as the worker has room for it."""
        self.queue(framed(request), frames.frame(frames.DATA, frames.END_STREAM, self.id))

    def over(self) -> None:
        self.closed = True

    def answered(self, fields: Fields, end: bool) -> None:
        """Headers came, or the status after everything."""
        known: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        for name, value in fields:
            if name in _TOLD:
                known[name] = value
            else:
                text = name.decode("ascii", "replace")
                try:
                    metadata.append((text, metadata_value(text, value)))
                except ValueError:
                    self._broken(f"{text} is not base64.")
                    return
        if self._initial is None:
            http = known.get(b":status", b"")
            if http[:1] == b"1" and not end:
                return
            if http != b"200":
                words = f"The worker's address answered with the HTTP status {http.decode('ascii', 'replace')[:3]}."
                self._reject(_OF_HTTP.get(http, _C.UNKNOWN), words)
                return
            if not end:
                if not known.get(b"content-type", b"").startswith(b"application/grpc"):
                    self._reject(_C.UNKNOWN, "What answers at the worker's address is not gRPC.")
                    return
                self._initial = tuple(metadata)
                self._wake()
                return
        if not end:
            self._broken("Headers came in the middle of an answer.")
            return
        self.ended = True
        code = known.get(b"grpc-status", b"")
        if self._pieces or not code.isdigit():
            self._finish(_C.INTERNAL.value[0], "The worker ended the call without a status.", ())
        else:
            self._finish(int(code), status_text(known.get(b"grpc-message", b"")), tuple(metadata))

    def feed(self, data: bytes, end: bool) -> None:
        if self._pieces:
            self._pieces.append(data)
            self._owed -= len(data)
            if self._owed > 0 and not end:
                if not self._responses:
                    self.give_back()
                return
            data = b"".join(self._pieces)  # not before: a large response comes in thousands of pieces
            self._pieces.clear()
        at, size, whole = 0, len(data), PREFIX_BYTES
        while size - at >= PREFIX_BYTES:
            whole = length(data[at : at + PREFIX_BYTES]) + PREFIX_BYTES
            if data[at]:
                self._broken("A response is compressed, which nobody asked for.")
                return
            if whole - PREFIX_BYTES > self._most:
                words = f"A response has {whole - PREFIX_BYTES} bytes (gateway.max_message_bytes is {self._most})."
                self._reject(_C.RESOURCE_EXHAUSTED, words)
                return
            if size - at < whole:
                break
            self._responses.append(data[at + PREFIX_BYTES : at + whole])
            at += whole
            whole = PREFIX_BYTES
        if at < size:
            self._pieces.append(data[at:])
            self._owed = whole - (size - at)
        if end:
            self.ended = True
            self._finish(_C.INTERNAL.value[0], "The worker ended the call without a status.", ())
        elif self._responses:
            self._wake()
        else:
            self.give_back()  # of a message that is not whole the rest must come

    def refused(self) -> None:
        """The worker has not looked at it, and will not."""
        self.drop()
        if self._status is None and self._tries < _TRIES:
            self._again = True
            self._wake()
        else:
            self._finish(_C.UNAVAILABLE.value[0], "The worker takes no calls now.", ())

    def lost(self) -> None:
        self.ended = True
        if self._status is not None:
            return
        if self.reset_by == frames.REFUSED_STREAM:
            self.refused()
        elif self.reset_by < 0:
            self._finish(_C.UNAVAILABLE.value[0], f"The connection to the worker broke: {self.connection.why}.", ())
        else:
            code = _OF_RESET.get(self.reset_by, _C.INTERNAL)
            self._finish(code.value[0], f"The worker ended the call (HTTP/2 error {self.reset_by}).", ())

    # Its own.

    @property
    def _most(self) -> int:
        connection: Any = self.connection
        return int(connection.max_message_bytes)

    async def _begin(self) -> None:
        self._again = False
        self._tries += 1
        picker = self._picker
        loop = asyncio.get_running_loop()
        connection = picker.ready(self._metadata)
        if connection is None:
            try:
                async with asyncio.timeout_at(self._deadline):
                    connection = await picker.pick(self._metadata)
            except TimeoutError:
                self._finish(_C.DEADLINE_EXCEEDED.value[0], "Deadline Exceeded", ())
                return
            if self._status is not None:
                return  # cancelled meanwhile
        left = self._deadline - loop.time()
        if self._timer is None:
            self._timer = loop.call_at(self._deadline, self._expire)
        block = (
            self._head
            + connection.request_block
            + hpack.encode(((b"grpc-timeout", timeout_value(left)),))
            + metadata_block(self._metadata)
        )
        connection.start(self, block, self._request)

    def _expire(self) -> None:
        self._timer = None
        self._give_up(_C.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _give_up(self, code: grpc.StatusCode, words: str) -> None:
        if self._status is None:
            self._reset(frames.CANCEL)
            self._finish(code.value[0], words, ())

    def _broken(self, words: str) -> None:
        self._reject(_C.INTERNAL, words)

    def _reject(self, code: grpc.StatusCode, words: str) -> None:
        """What came cannot be taken."""
        self._reset(frames.CANCEL)
        self._finish(code.value[0], words, ())

    def _reset(self, code: int) -> None:
        if self.id and self.connection.streams.get(self.id) is self:
            self.connection.write(frames.rst_stream(self.id, code))

    def _finish(self, code: int, words: str, trailers: Metadata) -> None:
        self._status = (code, words, trailers)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._pieces.clear()
        self._tail = b""
        if self.id:
            connection = self.connection
            if not self.closed and self.ended and connection.streams.get(self.id) is self:
                connection.write(frames.rst_stream(self.id, frames.NO_ERROR))  # the rest of the request stays here
            self.closed = True
            self.drop()
            connection.forget(self)
        self._wake()

    async def _change(self) -> None:
        """Until something has come."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


def error_of(code: int, message: str, trailers: Metadata) -> CallError:
    """A failed call as the error it carries. code: of its status."""
    details: bytes | None = None
    for name, value in trailers:
        if name == DETAILS_KEY:
            details = value if isinstance(value, bytes) else value.encode()
    return CallError.from_status(code, message, details)

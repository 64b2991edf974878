"""One call to a worker: its request, its responses, how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from gateway.rpc.status import OF_HTTP, OF_RESET, error_of
from trestle.errors import CallError
from trestle.http2 import frames, hpack
from trestle.http2.hpack import Fields
from trestle.http2.messages import (
    PREFIX_BYTES,
    metadata_block,
    metadata_value,
    status_text,
    timeout_value,
)
from trestle.http2.stream import Stream

if TYPE_CHECKING:
    from gateway.rpc.connection import ClientConnection
    from gateway.rpc.method import Picker

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Taker: TypeAlias = Callable[[Any], bool]
"""Takes a response; returns whether more may follow at once."""

_TAKE_BACK: Final = 16 * 1024
"""A worker is told that it may send more once so much has been taken, by who comes for the next response."""
_C: Final = grpc.StatusCode
_LAST_CODE: Final = 16
_TOO_LATE: Final = "Deadline Exceeded"
_TOLD: Final = frozenset((b":status", b"content-type", b"grpc-status", b"grpc-message", b"grpc-encoding"))


class Call(Stream):
    """Await its one response with `single`, or `read` its responses one by one; `cancel` it on every way out."""

    __slots__ = (
        "_begun",
        "_buffer",
        "_deadline",
        "_decode",
        "_head",
        "_initial",
        "_owed",
        "_picker",
        "_request",
        "_responses",
        "_retried",
        "_status",
        "_taker",
        "_timer",
        "_waiting",
        "metadata",
    )

    def __init__(
        self,
        picker: Picker,
        head: bytes,
        request: bytes,
        timeout: float,
        metadata: Metadata,
        decode: Callable[[bytes | bytearray], Any],
    ) -> None:
        # A stream it becomes when it is sent.
        self.id = 0
        self.taken = 0
        self._picker = picker
        self._head = head
        self._request = request
        self.metadata = metadata
        self._decode = decode
        self._deadline = asyncio.get_running_loop().time() + timeout
        self._begun = False
        self._retried = False
        self._buffer: bytes | bytearray = b""
        self._owed = 0
        self._responses: deque[bytes | bytearray] = deque()
        self._initial: Metadata | None = None
        self._status: tuple[int, str, Metadata] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Future[bool] | None = None
        self._taker: Taker | None = None

    async def single(self) -> Any:
        """The response of a call that has one. Raises `CallError`."""
        response = await self.read()
        if response is None:
            raise CallError.from_status(_C.INTERNAL.value[0], "The worker gave no response.", None)
        if await self.read() is not None:  # it is its status that makes the response count
            raise self._spoiled("The worker gave more than one response.")
        return response

    async def read(self) -> Any:
        """The next response, None at the end. Raises `CallError`, after all that came before it."""
        while not self._responses:
            if not self._ask_for_more():
                return None
            await self._change()
        return self._next()

    async def pass_to(self, taker: Taker) -> bool:
        """Gives the taker the responses as they come, without a turn of the event loop between, for as long as it
        returns True. Returns False once it has not, True at the end. Raises as `read`, and what the taker raises."""
        while True:
            while self._responses:
                if not taker(self._next()):
                    return False
            if not self._ask_for_more():
                return True
            self._taker = taker
            try:
                if not await self._change():
                    return False
            finally:
                self._taker = None

    def _ask_for_more(self) -> bool:
        """Now that there is no response: begins the call, or lets the worker send more. Returns whether more may come;
        at its end it does not. Raises `CallError`."""
        if not self._begun:
            self._begin()
        if self._status is None:
            if self.taken >= _TAKE_BACK:
                self.give_back()
            return True
        if self._status[0]:
            raise error_of(*self._status)
        return False

    def _next(self) -> Any:
        try:
            return self._decode(self._responses.popleft())
        except DecodeError:
            raise self._spoiled("A response cannot be read.") from None

    async def initial_metadata(self) -> Metadata:
        """What the worker said before its first response. Returns once it has. Not while somebody reads."""
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

    # The picker's side.

    def go(self, connection: ClientConnection, block: bytes) -> None:
        """Sends it. block: its headers, but for those of the connection and the time that is left."""
        left = self._deadline - connection.loop.time()
        if left <= 0:
            self._finish(_C.DEADLINE_EXCEEDED.value[0], _TOO_LATE, ())
            return
        timeout = hpack.encode(((b"grpc-timeout", timeout_value(left)),))
        connection.start(self, self._head + connection.request_block + timeout + block, self._request)

    def fail(self, words: str) -> None:
        """There is no way to the worker."""
        self._finish(_C.UNAVAILABLE.value[0], words, ())

    # The connection's side.

    def send(self, request: bytes) -> None:
        """Sends the request as the worker has room for it."""
        self.queue(request, frames.frame(frames.DATA, frames.END_STREAM, self.id))

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
            if http != b"200" and not (end and b"grpc-status" in known):
                words = f"The worker's address answered with the HTTP status {http.decode('ascii', 'replace')[:3]}."
                self._reject(OF_HTTP.get(http, _C.UNKNOWN), words)
                return
            if not end:
                if not known.get(b"content-type", b"").startswith(b"application/grpc"):
                    self._reject(_C.UNKNOWN, "What answers at the worker's address is not gRPC.")
                    return
                self._initial = tuple(metadata)
                self._request = b""  # nobody else is to be sent it
                self._wake()
                return
            if self._responses or self._buffer:
                self._broken("A response came before its headers.")
                return
        if not end:
            self._broken("Headers came in the middle of an answer.")
            return
        self.ended = True
        code = known.get(b"grpc-status", b"")
        if self._buffer or not code.isdigit():
            self._finish(_C.INTERNAL.value[0], "The worker ended the call without a status.", ())
        else:
            number = int(code) if len(code) < 3 else _LAST_CODE + 1
            if number > _LAST_CODE:
                number = _C.UNKNOWN.value[0]
            self._finish(number, status_text(known.get(b"grpc-message", b"")), tuple(metadata))

    def feed(self, data: bytes | bytearray, end: bool) -> None:
        buffer = self._buffer
        if buffer:
            buffer += data  # a bytearray, which grows where it is
            if len(buffer) < self._owed and not end:
                if self._waits and self.taken >= _TAKE_BACK:
                    self.give_back()
                return
            data, self._buffer = buffer, b""
        connection: Any = self.connection
        most = connection.max_message_bytes
        at, size = 0, len(data)
        owed = PREFIX_BYTES
        while (begin := at + PREFIX_BYTES) <= size:
            length = int.from_bytes(data[at + 1 : begin], "big")
            if data[at]:
                self._broken("A response is compressed, which nobody asked for.")
                return
            if length > most:
                words = f"A response has {length} bytes (gateway.max_message_bytes is {most})."
                self._reject(_C.RESOURCE_EXHAUSTED, words)
                return
            after = begin + length
            if size < after:
                owed = after - at
                break
            self._responses.append(data[begin:after])
            at = after
        if at < size:
            self._buffer = bytearray(data[at:])
            self._owed = owed
        if end:
            self.ended = True
            self._finish(_C.INTERNAL.value[0], "The worker ended the call without a status.", ())
            return
        if self._responses:
            if self._taker is None:
                self._wake()
            elif self._waits:
                self._hand_on(self._taker)
        if self._waits and self.taken >= _TAKE_BACK:
            self.give_back()

    def refused(self) -> None:
        """The worker has not looked at it, and will not."""
        self.id = 0
        if self._status is not None:
            return
        if self._retried or self._initial is not None:
            self.fail("The worker takes no calls now.")
        else:
            self._retried = True  # once, as gRPC has it (gRFC A6)
            self._begin()

    def lost(self) -> None:
        self.ended = True
        if self._status is not None:
            return
        if self.reset_by == frames.REFUSED_STREAM:
            self.refused()
        elif self.reset_by < 0:
            self._finish(_C.UNAVAILABLE.value[0], f"The connection to the worker broke: {self.connection.why}.", ())
        else:
            code = OF_RESET.get(self.reset_by, _C.INTERNAL)
            if code is _C.CANCELLED and self.connection.loop.time() >= self._deadline:
                code = _C.DEADLINE_EXCEEDED
            self._finish(code.value[0], f"The worker ended the call (HTTP/2 error {self.reset_by}).", ())

    # Its own.

    def _begin(self) -> None:
        self._begun = True
        if self._status is not None:
            return
        block = metadata_block(self.metadata)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._deadline, self._expire)
        connection = self._picker.ready(self.metadata)
        if connection is None:
            self._picker.queue(self, block)
        else:
            self.go(connection, block)

    def _expire(self) -> None:
        self._timer = None
        waited = "" if self.id else self._picker.leave(self)
        self._give_up(_C.DEADLINE_EXCEEDED, f"{_TOO_LATE} {waited}" if waited else _TOO_LATE)

    def _give_up(self, code: grpc.StatusCode, words: str) -> None:
        if self._status is None:
            self._reset(frames.CANCEL)
            self._finish(code.value[0], words, ())

    def _spoiled(self, words: str) -> CallError:
        """What came says nothing, and so does whatever came after it."""
        self._responses.clear()
        self._broken(words)
        return error_of(_C.INTERNAL.value[0], words, ())

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
        self._buffer = self._request = b""
        if self.id:
            connection = self.connection
            if not self.closed and self.ended and connection.streams.get(self.id) is self:
                connection.write(frames.rst_stream(self.id, frames.NO_ERROR))  # the rest of the request stays here
            self.closed = self.ended = True
            self._tail = b""
            self.drop()
            connection.forget(self)
        else:
            self._picker.leave(self)
        self._wake()

    def _hand_on(self, taker: Taker) -> None:
        """What has come is the taker's."""
        waiting, responses = self._waiting, self._responses
        assert waiting is not None
        try:
            while responses:
                if not taker(self._next()):
                    waiting.set_result(False)
                    return
        except Exception as error:  # noqa: BLE001 (for who waits)
            if not waiting.done():
                waiting.set_exception(error)

    async def _change(self) -> bool:
        """Until something has come; False where the taker wants no more."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting
        finally:
            self._waiting = None

    @property
    def _waits(self) -> bool:
        """Whether somebody waits."""
        return self._waiting is not None and not self._waiting.done()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(True)

"""One call, from its headers to its status: what a servicer is given, on a stream of HTTP/2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc

from trestle.http2 import hpack
from trestle.http2.frames import CANCEL, NO_ERROR, headers, message, rst_stream
from trestle.http2.messages import PREFIX_BYTES, Metadata, length, metadata_block, status_fields, unzipped
from trestle.http2.stream import Stream
from trestle.rpc.method import Method

if TYPE_CHECKING:
    from trestle.rpc.connection import ServerConnection

log: Final = logging.getLogger("trestle")
HEAD: Final = hpack.encode(((b":status", b"200"), (b"content-type", b"application/grpc")))
_DONE: Final = hpack.encode(((b"grpc-status", b"0"),))
_READ_AGAIN: Final = 64 * 1024
"""A client is told that it may send more once it has sent so much."""
_LATE: Final = 0.02
"""Seconds by which a deadline is kept late here: the client has one too, and whose clock is first must not decide how
the call has ended. A stream that is broken off says CANCELLED to a client whose deadline is still to come."""


class Aborted(Exception):
    """The call has its status; its method has nothing more to do."""


class Call(Stream):
    """Has the names that `grpc.aio.ServicerContext` has, as far as servicers use them. metadata: what came with it, the
    values of names that end in `-bin` as bytes. caller: who calls, as whoever admitted it says; None where nobody was
    asked. deadline: an instant of the loop's clock; None for none."""

    connection: ServerConnection
    __slots__ = (
        "_begun",
        "_coding",
        "_gathered",
        "_method",
        "_owed",
        "_requests",
        "_task",
        "_timer",
        "caller",
        "deadline",
        "metadata",
    )

    def __init__(
        self,
        connection: ServerConnection,
        number: int,
        method: Method,
        metadata: tuple[tuple[str, str | bytes], ...],
        timeout: float | None,
        coding: bytes,
    ) -> None:
        super().__init__(connection, number)
        self.metadata = metadata
        self.caller: Any = None
        self.deadline: float | None = None
        self._method = method
        self._coding = coding
        self._begun = False
        self._gathered: bytearray | None = None
        self._owed = 0
        self._requests: _Requests | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout is not None:
            self.deadline = connection.loop.time() + timeout
            self._timer = connection.loop.call_at(self.deadline + _LATE, self._expire)

    # The servicer's side.

    def time_remaining(self) -> float | None:
        """Seconds until the deadline; None for none."""
        return None if self.deadline is None else self.deadline - self.connection.loop.time()

    def peer(self) -> str:
        """Where it comes from, as gRPC writes it."""
        address = self.connection.transport.get_extra_info("peername")
        if not isinstance(address, tuple):
            return "unix:"
        host, port = address[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def certificate(self) -> Mapping[str, Any]:
        """What its client showed, as `ssl.SSLSocket.getpeercert` has it; empty for nothing."""
        tls = self.connection.transport.get_extra_info("ssl_object")
        return {} if tls is None else tls.getpeercert() or {}

    async def send_initial_metadata(self, metadata: Metadata) -> None:
        """Sends these at once."""
        if not self.closed and not self._begun:
            self.connection.write(self._head(metadata))

    async def write(self, response: Any) -> None:
        """Sends one response, ready bytes or a message; returns once there is room for the next one."""
        self.put(response if response.__class__ is bytes else self._method.serialize(response))
        await self.flushed()

    def put(self, data: bytes) -> None:
        """Sends one response, as bytes. Await `flushed` before the next one where the call is `blocked` then."""
        if self.closed:
            raise asyncio.CancelledError("the caller is gone")
        head = b"" if self._begun else self._head()
        if self.fits(len(data) + PREFIX_BYTES):
            self.connection.write(head + message(self.id, data))
        else:
            if head:
                self.connection.write(head)
            self.queue(data)

    @property
    def blocked(self) -> bool:
        """Whether the other side, or the socket, has to take something first."""
        return self.connection.full or self.sending

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> NoReturn:
        """Ends the call with a status that is not OK. Raises `Aborted`."""
        self.end(code, details, trailing_metadata)
        raise Aborted

    # The connection's side.

    def begin(self) -> None:
        """It may be served: at once where requests are streamed, else when its request is there."""
        if self._method.streams_in:
            self._requests = _Requests(self)
            self._start(self._requests)

    def feed(self, data: bytes, end: bool) -> None:
        if end:
            self.ended = True
        if self.closed:
            return
        if self._requests is not None:
            self._requests.feed(data, end)
        elif end and self._gathered is None:
            self._take(data)
        else:
            self._gather(data, end)

    def over(self) -> None:
        """Its status has been sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._gathered = None
        connection = self.connection
        if not self.ended and self.id in connection.streams:
            connection.write(rst_stream(self.id, NO_ERROR))  # the rest of the request may stay where it is
        connection.forget(self)

    def lost(self) -> None:
        self.closed = True
        self._tail = b""
        self.drop()
        self.over()
        if self._task is not None:
            self._task.cancel()

    def end(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()) -> None:
        """Its status is sent, after what waits for room."""
        if self.closed:
            return
        block = hpack.encode(status_fields(code.value[0], details)) + metadata_block(trailing_metadata)
        tail = headers(self.id, block if self._begun else HEAD + block, end=True, most=self.connection.frame_bytes)
        self.closed = True
        if self.sending:
            self._tail = tail
        else:
            self.connection.write(tail)
            self.over()

    def stop(self, code: grpc.StatusCode, details: str) -> None:
        """It ends now, with this status if that can be sent, and its method is cancelled."""
        if self.sending:
            self.connection.write(rst_stream(self.id, CANCEL))
            self.ended = True
        else:
            self.end(code, details)
        self.lost()

    def unpack(self, flag: int, data: bytes | bytearray) -> Any:
        """A request that came; None where it is none, and the call has ended. flag: of its frame."""
        if flag:
            most = self.connection.served.max_message_bytes
            plain = unzipped(data, self._coding, most) if flag == 1 else None
            if plain is None:
                self.end(grpc.StatusCode.INTERNAL, "The request is not compressed as its headers say, or too large.")
                return None
            data = plain
        try:
            return self._method.deserialize(data)
        except Exception:  # noqa: BLE001 (whatever the message's own library raises)
            self.end(grpc.StatusCode.INTERNAL, "The request cannot be read.")
            return None

    def takes(self, size: int) -> bool:
        """Whether a request may have so many bytes; if not the call has ended."""
        served = self.connection.served
        if size <= served.max_message_bytes:
            return True
        setting = f" ({served.limit_setting})" if served.limit_setting else ""
        words = f"The request has {size} bytes, and may have {served.max_message_bytes}{setting}."
        self.end(grpc.StatusCode.RESOURCE_EXHAUSTED, words)
        return False

    def cut(self) -> None:
        """Nothing more comes, though something is missing."""
        self.end(grpc.StatusCode.INTERNAL, "The call ended before its request was whole.")

    # Its own.

    def _gather(self, data: bytes, end: bool) -> None:
        """One more piece of the request. end: the last one."""
        whole = self._gathered
        if whole is None:
            whole = self._gathered = bytearray()
        whole += data
        if not self._owed and len(whole) >= PREFIX_BYTES:
            self._owed = length(whole) + PREFIX_BYTES
            if not self.takes(self._owed - PREFIX_BYTES):
                return
        if len(whole) > self._owed > 0:
            self._refuse_more()
        elif end:
            self._gathered = None
            self._take(whole)
        elif self.taken >= _READ_AGAIN:
            self.give_back()

    def _take(self, whole: bytes | bytearray) -> None:
        """All of the request in its frame."""
        size = length(whole)
        if len(whole) < PREFIX_BYTES or len(whole) < size + PREFIX_BYTES:
            self.cut()
        elif len(whole) > size + PREFIX_BYTES:
            self._refuse_more()
        elif self.takes(size):
            flag = whole[0]
            if isinstance(whole, bytearray):
                del whole[:PREFIX_BYTES]  # where it is: of a large one a copy is what costs most
            else:
                whole = whole[PREFIX_BYTES:]
            request = self.unpack(flag, whole)
            if request is not None:
                self._start(request)

    def _refuse_more(self) -> None:
        self.end(grpc.StatusCode.INTERNAL, "The call has more than one request, or one that is not in gRPC's frame.")

    def _expire(self) -> None:
        self._timer = None
        self.stop(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _start(self, request: Any) -> None:
        self._task = self.connection.loop.create_task(self._serve(request))

    async def _serve(self, request: Any) -> None:
        method = self._method
        try:
            last = None
            if method.generates:
                async with aclosing(method.run(request, self)) as responses:
                    async for each in responses:
                        await self.write(each)
            else:
                last = await method.run(request, self)
            if last is None:
                self.end(grpc.StatusCode.OK)
            elif not self.closed:
                self._answer(method.serialize(last))
        except Aborted:
            pass
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.CANCELLED)  # where it was not the client: something in the method
        except Exception:
            log.exception("a call failed")
            self.end(grpc.StatusCode.UNKNOWN, f"The {self.connection.served.name} failed.")

    def _answer(self, data: bytes) -> None:
        """The last response, with the status OK."""
        head = b"" if self._begun else self._head()
        tail = headers(self.id, _DONE, end=True)
        self.closed = True
        if self.fits(len(data) + PREFIX_BYTES):
            self.connection.write(head + message(self.id, data) + tail)
            self.over()
        else:
            if head:
                self.connection.write(head)
            self.queue(data, tail)

    def _head(self, metadata: Metadata = ()) -> bytes:
        head = headers(self.id, HEAD + metadata_block(metadata) if metadata else HEAD, end=False)
        self._begun = True
        return head


class _Requests:
    """The requests of a call that streams them, in turn. Its client may send more once these have been taken."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._buffer = bytearray()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, data: bytes, end: bool) -> None:
        """DATA came. end: nothing more does."""
        self._buffer += data
        self._ended = end
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        """The next one. Raises `Aborted` where the call has ended for what came."""
        buffer, call = self._buffer, self._call
        while not call.closed:
            if len(buffer) >= PREFIX_BYTES:
                whole = length(buffer) + PREFIX_BYTES
                if not call.takes(whole - PREFIX_BYTES):
                    break
                if len(buffer) >= whole:
                    request = call.unpack(buffer[0], bytes(buffer[PREFIX_BYTES:whole]))
                    if request is None:
                        break
                    del buffer[:whole]
                    return request
            if self._ended:
                if not buffer:
                    raise StopAsyncIteration
                call.cut()
                break
            call.give_back()
            self._waiter = call.connection.loop.create_future()
            await self._waiter
        raise Aborted

"""One call to a worker, made on the core of gRPC's asyncio itself.

`grpc.aio`'s own call objects are a layer above that core: a task for each call, and for each message of a stream an
asynchronous generator and two coroutines. Without them a request costs the gateway a tenth less (docs/decisions/0009).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final, TypeAlias

import grpc

from trestle.errors import DETAILS_KEY, CallError

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_END: Final = grpc.aio.EOF
_OK: Final = grpc.StatusCode.OK.value[0]


class Method:
    """One method of a worker's. name: without its service. response_type: of its responses. Call it to make a call."""

    __slots__ = ("_channel", "_decode", "_path", "name")

    def __init__(self, channel: grpc.aio.Channel, service: str, name: str, response_type: Any) -> None:
        self._channel: Any = channel._channel  # type: ignore[attr-defined]  # noqa: SLF001 (see above)
        self._path = f"/{service}/{name}".encode("ascii")
        self.name = name
        self._decode = response_type.FromString

    def __call__(self, request: Any, timeout: float, metadata: Metadata) -> Call:
        """A call that has not begun. The request is written now and may change afterwards. timeout: in seconds."""
        call = self._channel.call(self._path, time.time() + timeout, None, None, 0)
        return Call(call, request.SerializeToString(), metadata, self._decode)


class Call:
    """Await its one response with `single`, or `read` its responses one by one; `cancel` it on every way out."""

    __slots__ = ("_begun", "_call", "_decode", "_metadata", "_request")

    def __init__(self, call: Any, request: bytes, metadata: Metadata, decode: Any) -> None:
        self._begun = False
        self._call = call
        self._request = request
        self._metadata = metadata
        self._decode = decode

    async def single(self) -> Any:
        """The response of a call that has one. Raises `CallError`."""
        data = await self._call.unary_unary(self._request, self._metadata, None)
        if data is None:
            raise await self._failure()
        return self._decode(data)

    async def read(self) -> Any:
        """The next response, None at the end. Raises `CallError`, after all that came before it."""
        if not self._begun:
            self._begun = True
            request, self._request = self._request, b""
            await self._call.initiate_unary_stream(request, self._metadata, None)
        data = await self._call.receive_serialized_message()
        if data is not _END:
            return self._decode(data)
        if (await self._call.status()).code() != _OK:
            raise await self._failure()
        return None

    async def initial_metadata(self) -> Metadata:
        """What the worker said before its first response. Returns once it has."""
        return tuple(await self._call.initial_metadata())

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return bool(self._call.done())

    def cancel(self) -> None:
        """Ends it, if it has not ended; who waits for it gets a `CallError`."""
        if not self._call.done():
            self._call.cancel("The gateway has no more use for it.")

    async def _failure(self) -> CallError:
        status = await self._call.status()
        return error_of(status.code(), status.details(), status.trailing_metadata())


def error_of(code: int, message: str | None, trailers: Iterable[tuple[str, str | bytes]] | None) -> CallError:
    """A failed call as the error it carries. code: of its status."""
    details: bytes | None = None
    for name, value in trailers or ():
        if name == DETAILS_KEY:
            details = value if isinstance(value, bytes) else value.encode()
    return CallError.from_status(code, message or "", details)

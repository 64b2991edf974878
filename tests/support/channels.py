"""A channel of the gateway's, calls on it whose messages are plain bytes, and servers that answer them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.upstream import PATIENCE

from gateway.rpc.call import Call, Metadata
from gateway.rpc.channel import Channel
from gateway.rpc.method import Method
from gateway.rpc.names import parse
from trestle.errors import CallError
from trestle.rpc.method import Method as Served
from trestle.rpc.method import methods_of
from trestle.rpc.server import Server

SERVICE = "test.Service"
PATH = f"/{SERVICE}/Do"
T = TypeVar("T")


class Plain:
    """The channel: `call` makes calls of one method. most: bytes of a response."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._method: Method = channel.method(SERVICE, "Do", BytesValue)

    def call(self, request: bytes = b"", timeout: float = PATIENCE, metadata: Metadata = ()) -> Call:
        return self._method(BytesValue(value=request), timeout, metadata)


@asynccontextmanager
async def opened(
    target: str,
    *,
    context: ssl.SSLContext | None = None,
    tls_name: str = "",
    balance: str = "round_robin",
    resolve_interval: float = 10.0,
    most: int = 64 * 1024 * 1024,
) -> AsyncIterator[Plain]:
    channel = Channel(
        parse(target),
        SERVICE,
        context=context,
        tls_name=tls_name,
        balance=balance,
        resolve_interval=resolve_interval,
        max_message_bytes=most,
    )
    try:
        yield Plain(channel)
    finally:
        async with asyncio.timeout(PATIENCE):
            await channel.close()


def said(data: bytes) -> bytes:
    """A response that says so, serialized."""
    return BytesValue(value=data).SerializeToString()


async def soon(what: Awaitable[T]) -> T:
    async with asyncio.timeout(PATIENCE):
        return await what


async def failure(call: Call) -> tuple[int, str]:
    """How a call ends that fails: status and words."""
    with pytest.raises(CallError) as caught:
        await soon(_all(call))
    return caught.value.status, caught.value.message


async def _all(call: Call) -> None:
    while await call.read() is not None:
        pass


async def echo(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """What was asked, twice."""
    yield request
    yield request


def grpcs(checks: health.aio.HealthServicer | None = None, **options: Any) -> grpc.aio.Server:
    """A server of gRPC itself. checks: what it says of its health; without, it does not know of such questions."""
    server = grpc.aio.server(options=tuple((name.replace("__", "."), value) for name, value in options.items()))
    handler: Any = grpc.unary_stream_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Do": handler}),))
    if checks is not None:
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    return server


@asynccontextmanager
async def grpc_server(address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[str]:
    server = grpcs(**options)
    port = server.add_insecure_port(address)
    await server.start()
    yield address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
    await server.stop(None)


@asynccontextmanager
async def own_server(address: str = "127.0.0.1:0", **options: Any) -> AsyncIterator[str]:
    server = Server(**options)
    checks = health.aio.HealthServicer()
    await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    server.add({PATH: Served(echo, bytes, bytes)})
    server.add(methods_of(health_pb2_grpc.add_HealthServicer_to_server, checks))
    yield await server.listen("test", address)
    await server.stop(0)


async def ask(plain: Plain, data: bytes = b"?") -> list[bytes]:
    """What is answered."""
    call = plain.call(data)
    answers = []
    try:
        while (response := await soon(call.read())) is not None:
            answers.append(response.value)
    finally:
        call.cancel()
    return answers


async def until_it_answers(plain: Plain) -> None:
    async with asyncio.timeout(PATIENCE):
        while await outcome(plain) is not None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


async def until_it_fails(plain: Plain) -> tuple[int, str]:
    """Returns how: status and words."""
    async with asyncio.timeout(PATIENCE):
        while (failed := await outcome(plain)) is None:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)
    return failed


async def outcome(plain: Plain) -> tuple[int, str] | None:
    """How a call fails, if it does."""
    try:
        assert await ask(plain) == [b"?", b"?"]
    except CallError as error:
        return error.status, error.message
    return None


async def patient(plain: Plain) -> Any:
    """The first response of a call that is made again until somebody is there."""
    while True:
        try:
            return await plain.call().read()
        except CallError:
            await asyncio.sleep(0.01)

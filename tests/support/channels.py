"""A channel of the gateway's, and calls on it whose messages are plain bytes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from support.upstream import PATIENCE

from gateway.rpc.call import Call, Metadata, Method
from gateway.rpc.channel import Channel
from gateway.rpc.names import parse
from trestle.errors import CallError

SERVICE = "test.Service"
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

"""A channel of the gateway's, and the other end of its only connection in a test's hands."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.channels import Plain, opened, said, soon
from support.http2_server import DATA, Http2Server, Peer, Request, frame, message

from gateway.rpc.call import Call
from trestle.errors import CallError


@asynccontextmanager
async def pair(
    values: dict[int, int] | None = None, cut: random.Random | None = None, most: int = 64 * 1024 * 1024
) -> AsyncIterator[tuple[Plain, Peer]]:
    """A channel and the other end of its only connection, which has served one call. values: its settings."""
    async with Http2Server(cut=cut) as server, opened(server.address, most=most) as plain:
        call, serving = plain.call(), asyncio.create_task(server.serving(values))
        reading = asyncio.create_task(call.single())
        peer = await serving
        asked = await peer.request()
        await answer(peer, asked)
        await soon(reading)
        yield plain, peer


async def answer(peer: Peer, asked: Request, *responses: bytes) -> None:
    """Takes the request, and says this, b"" where it is nothing."""
    await peer.body(asked.stream)
    await peer.send(peer.headers(asked.stream))
    for response in responses or (b"",):
        await peer.send(frame(DATA, 0, asked.stream, message(said(response))))
    await peer.send(peer.status(asked.stream))


async def begun(plain: Plain, peer: Peer, **options: object) -> tuple[Call, asyncio.Task[object], Request]:
    """A call whose request has come whole, and who reads it."""
    call = plain.call(**options)  # type: ignore[arg-type]
    reading = asyncio.create_task(call.read())
    asked = await peer.request()
    await peer.body(asked.stream)
    return call, reading, asked


async def raised(reading: asyncio.Task[object]) -> tuple[int, str]:
    with pytest.raises(CallError) as caught:
        await soon(reading)
    return caught.value.status, caught.value.message

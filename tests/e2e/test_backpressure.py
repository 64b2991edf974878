"""Many clients that stop reading a large answer: what each of them costs the gateway and the worker, and that others do
not notice."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support import services
from support.client import Client, ask
from support.process import held_by
from support.services import Service
from support.upstream import PATIENCE, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = 200
MOST = 1_000_000
"""Bytes that a stalled stream may hold in either process."""
SIZES = {"small chunks": 40, "large chunks": 16_000}
"""Characters in a chunk of the answer."""
ANSWER = 20_000_000 + sum(
    int(Path(f"/proc/sys/net/ipv4/tcp_{of}mem").read_text().split()[2]) for of in ("r", "w", "w")
)
"""Bytes of an answer: more than the kernel may take on its way, at most."""
HEALTHY = text_stream([f"{number} " for number in range(2_000)])


class Bridge:
    """A gateway, a worker and an upstream that answers `stalled` with the large answer and others with a small one."""

    def __init__(self, upstream: ScriptedUpstream, worker: Service, gateway: Service) -> None:
        self.upstream = upstream
        self.worker = worker
        self.gateway = gateway
        self.large = Reply.sse()

    def memory(self) -> dict[str, int]:
        """Bytes held by either process."""
        return {"gateway": held_by(self.gateway).memory, "worker": held_by(self.worker).memory}

    def will_send(self, size: int) -> None:
        """The large answer has chunks of so many characters, and its upstream writes many of them at once."""
        event = sse(chunk({"content": "x" * size}))
        piece = event * max(1, 256_000 // len(event))
        self.will_answer(Reply.sse(*[piece] * (ANSWER // len(piece)), *text_stream(["."])))

    def will_answer(self, large: Reply) -> None:
        """What it answers `stalled`."""
        self.large = large
        self.upstream.always = self._answer

    def _answer(self, request: Any) -> Reply:
        if b"stalled" in request.body:
            return self.large
        return Reply.sse(*HEALTHY) if b'"stream":true' in request.body else Reply.json(completion())


@pytest_asyncio.fixture(loop_scope="session")
async def bridge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    """New processes for each test: memory that one has left behind is no measure for the next."""
    folder = tmp_path_factory.mktemp("backpressure")
    async with ScriptedUpstream() as upstream:
        upstreams = {"only": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
        async with services.worker("openai", folder, upstreams, forks=False) as worker:
            settings = {"workers": {"openai": worker.address}}
            async with services.gateway(settings, folder, forks=False) as gateway:
                yield Bridge(upstream, worker, gateway)


async def stall(gateway: Service, stack: ExitStack) -> socket.socket:
    """A client that asks for the large answer and reads nothing of it."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "stalled"}], "stream": True}).encode()
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    client.setblocking(False)
    host, _, port = gateway.address.rpartition(":")
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, (host, int(port)))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n"
    await loop.sock_sendall(client, head.encode() + body)
    return client


async def healthy(client: Client) -> None:
    """Another stream, from its beginning to its end."""
    stream = await client.stream(ask("m"))
    assert stream.done
    assert len(stream.chunks) > 2_000


async def standstill(bridge: Bridge, client: Client) -> int:
    """Waits until the upstream can send none of them any more; returns the bytes it has sent. The measure of time is
    other work of the same processes."""
    before = -1
    for _ in range(200):
        for _ in range(3):
            await healthy(client)
        taken = sum(request.taken for request in bridge.upstream.requests if b"stalled" in request.body)
        if taken == before:
            return taken
        before = taken
    raise AssertionError(f"{before} bytes sent to clients that do not read, and it goes on")


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
async def test_stalled_streams(size: int, bridge: Bridge, record_property: Callable[[str, object], None]) -> None:
    bridge.will_send(size)
    async with Client(bridge.gateway.address) as client:
        await asyncio.gather(*(healthy(client) for _ in range(20)))
        before = bridge.memory()
        with ExitStack() as stack:
            for _ in range(CLIENTS):
                await stall(bridge.gateway, stack)
            taken = await standstill(bridge, client)
            stalled = [request for request in bridge.upstream.requests if b"stalled" in request.body]
            assert len(stalled) == CLIENTS
            ended = [(request.taken, request.gone.is_set()) for request in stalled if request.answered.is_set()]
            assert not ended, "bytes sent, and whether the connection was gone"
            assert taken < CLIENTS * ANSWER / 4
            during = bridge.memory()
            await healthy(client)
        for name, was in before.items():
            each = (during[name] - was) // CLIENTS
            record_property(f"bytes of a stalled stream in the {name}", each)
            assert each <= MOST, f"{each} bytes in the {name}"
        for request in stalled:
            await request.closed()
        await healthy(client)


async def test_who_takes_its_time_gets_everything_once(bridge: Bridge) -> None:
    texts = [f"{number:07} " * 100 for number in range(ANSWER // 800)]
    bridge.will_answer(Reply.sse(*text_stream(texts)))
    with ExitStack() as stack:
        client = await stall(bridge.gateway, stack)
        async with Client(bridge.gateway.address) as other:
            assert await standstill(bridge, other) > 0
        loop, told = asyncio.get_running_loop(), bytearray()
        async with asyncio.timeout(PATIENCE):
            while not told.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                told += await loop.sock_recv(client, 1 << 16)
    assert [text.decode() for text in re.findall(rb'"content":"([^"]+)"', told)] == texts

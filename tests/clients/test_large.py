"""Requests with 20 MB of images: they arrive as they were sent, and what they cost is given back."""

from __future__ import annotations

import asyncio
import base64
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from clients.bridge import Bridge
from support import services
from support.chain import KEY
from support.client import Client, ask
from support.services import Service
from support.upstream import PATIENCE, Reply, ScriptedUpstream, completion, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")

SIZE = 20_000_000
IMAGE = "data:image/png;base64," + base64.b64encode(random.Random(0).randbytes(SIZE * 3 // 4)).decode()
PARTS = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}}]
REQUEST: dict[str, Any] = ask(messages=[{"role": "user", "content": PARTS}], temperature=0.5)


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(bridge: Bridge, tmp_path: Path) -> AsyncIterator[Service]:
    """A gateway that nobody has asked anything yet."""
    async with services.gateway(bridge.settings, tmp_path, "gateway-for-large", forks=False) as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="session")
async def client(gateway: Service) -> AsyncIterator[Client]:
    async with Client(gateway.address, {"authorization": f"Bearer {KEY}"}) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def other(gateway: Service) -> AsyncIterator[Client]:
    """A client with connections of its own."""
    async with Client(gateway.address, {"authorization": f"Bearer {KEY}"}) as other:
        yield other


class Memory:
    """A process's resident memory in bytes, by the kernel's books."""

    def __init__(self, service: Service) -> None:
        self._status = Path(f"/proc/{service.process.pid}/status")
        if not self._status.exists():
            pytest.skip("no /proc here, which tells how much memory a process has")

    def now(self) -> int:
        return self._kilobytes("VmRSS") * 1024

    def most(self) -> int:
        return self._kilobytes("VmHWM") * 1024

    async def falls_below(self, limit: int, other: Client) -> None:
        """Returns once it has; fails a test for which that never happens. other: a client whose connections are not
        those that cost the memory, which stay idle."""
        async with asyncio.timeout(PATIENCE):
            while self.now() >= limit:
                await other.ask("GET", "/healthz")

    def _kilobytes(self, name: str) -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", self._status.read_text(encoding="ascii"))
        assert found is not None
        return int(found[1])


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_it_arrives_unchanged(streamed: bool, client: Client, upstream: ScriptedUpstream) -> None:
    if streamed:
        upstream.will(Reply.sse(*text_stream(["A cat."])))
        assert (await client.stream(REQUEST)).text() == "A cat."
    else:
        upstream.will(Reply.json(completion("A cat.")))
        assert (await client.chat(REQUEST)).json["choices"][0]["message"]["content"] == "A cat."
    sent = upstream.requests[0].json
    extra = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    assert sent == {**REQUEST, "model": "scripted-model", **extra}


async def test_the_gateways_memory_returns(
    gateway: Service, client: Client, other: Client, upstream: ScriptedUpstream
) -> None:
    """One after the other they cost a small multiple of a body, several at once their sum; it is given back even while
    the client keeps its connections."""
    memory = Memory(gateway)
    upstream.will(Reply.json(completion()))
    await other.chat(ask())
    before = memory.now()
    for _ in range(4):
        upstream.will(Reply.json(completion()))
        assert (await client.chat(REQUEST)).status == 200
        upstream.forget()
        await memory.falls_below(before + SIZE, other)
    assert memory.most() < before + 12 * SIZE

    together = 4
    upstream.will(*[Reply.json(completion())] * together)
    answers = await asyncio.gather(*(client.chat(REQUEST) for _ in range(together)))
    assert [answer.status for answer in answers] == [200] * together
    assert memory.most() < before + together * 12 * SIZE
    await memory.falls_below(before + SIZE, other)

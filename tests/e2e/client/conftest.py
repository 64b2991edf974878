"""A worker in front of a scripted upstream, and both kinds of client for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from support import services
from support.direct import Connect, Threaded, connected
from support.services import Service
from support.upstream import PATIENCE, ScriptedUpstream

from trestle.client import Client


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Service, ScriptedUpstream]]:
    async with ScriptedUpstream() as upstream:
        settings = {"base_url": upstream.url, "retries": 0, "models": ["scripted-model", "other"]}
        folder = tmp_path_factory.mktemp("client")
        async with services.worker("openai", folder, {"scripted": settings}) as worker:
            yield worker, upstream


@pytest.fixture
def worker(running: tuple[Service, ScriptedUpstream]) -> str:
    """Where it listens."""
    return running[0].address


@pytest.fixture
def upstream(running: tuple[Service, ScriptedUpstream]) -> Iterator[ScriptedUpstream]:
    yield running[1]
    assert not running[1].forget(), "replies that nobody asked for"


@pytest.fixture(params=[Client, Threaded], ids=["asyncio", "sync"])
def connect(request: pytest.FixtureRequest) -> Connect:
    kind: Connect = request.param
    return kind


@pytest_asyncio.fixture(loop_scope="session")
async def client(connect: Connect, worker: str) -> AsyncIterator[Client]:
    async with connected(connect, worker, timeout=PATIENCE) as client:
        yield client

"""A server of the test's methods, and somebody who speaks HTTP/2 to it frame by frame."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from support.http2 import Peer, connected
from support.rpc import Service, serving


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[str, Service]]:
    async with serving() as (address, service, _):
        yield address, service


@pytest_asyncio.fixture
async def peer(served: tuple[str, Service]) -> AsyncIterator[Peer]:
    async with connected(served[0], {}) as peer:
        yield peer

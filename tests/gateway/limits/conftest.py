"""A Redis of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from support.redis import Missing, redis_server


@pytest_asyncio.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    try:
        with redis_server(tmp_path) as server:
            client = Redis.from_url(server.url)
            yield client
            await client.aclose()
    except Missing as missing:
        pytest.skip(str(missing))

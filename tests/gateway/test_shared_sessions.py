"""Session events over a Redis that is really there."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.redis import Missing, redis_server
from support.upstream import PATIENCE

from gateway.redis import connect
from gateway.settings import SessionSettings
from gateway.shared_sessions import SharedSessions


async def test_who_leaves_is_gone_whenever_that_is(tmp_path: Path) -> None:
    """Also while a command is on its way to Redis: redis-py then goes on as if nothing had been said."""
    try:
        with redis_server(tmp_path) as redis:
            sessions = SharedSessions(connect(redis.url), connect(redis.url, timeout=PATIENCE), SessionSettings())
            left = [await _left(sessions, turns) for turns in (*range(10), *range(10))]
            _, there = await asyncio.wait(left, timeout=PATIENCE)
            assert not there
            await sessions.close()
    except Missing as missing:
        pytest.skip(str(missing))


async def _left(sessions: SharedSessions, turns: int) -> asyncio.Task[Any]:
    """A listener that leaves after so many turns of the event loop."""
    reading: Any = sessions.read("a", "s", (0, 0))
    task = asyncio.create_task(anext(reading))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0.02)  # connections to Redis are there for the next one
    return task

"""What becomes of leases: settled when their requests end, or as soon as Redis can be reached again; renewed until
then; none where Redis was not asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop
from redis.asyncio import Redis
from support.upstream import PATIENCE

from gateway.exchange import Exchange
from gateway.limits import limiter as module
from gateway.limits.limiter import Admission, Limiter
from gateway.limits.policy import Holder, Limits
from gateway.limits.shared import SharedLimits
from gateway.prices import Prices
from gateway.record import Record
from gateway.redis import connect
from gateway.settings import LimiterSettings
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

KEY = Holder("key:k", "a", Limits(concurrent=9, tokens_per_day=1_000_000))
ONE = Holder("key:k", "a", Limits(concurrent=1))
USED, OPEN = "trestle:{a}:used:key:k", "trestle:{a}:open:key:k"
RESERVED = 100
ASKED = chat_pb2.ChatRequest(sampling=chat_pb2.Sampling(max_tokens=RESERVED))


@asynccontextmanager
async def limiting(redis: Redis, lease: float = 30.0, **settings: Any) -> AsyncIterator[Limiter]:
    port = redis.connection_pool.connection_kwargs["port"]
    shared = SharedLimits(connect(f"redis://127.0.0.1:{port}/0"), lease)
    limiter = Limiter(LimiterSettings(**settings), lambda _: None, Prices([]), shared)
    limiter.start()
    try:
        yield limiter
    finally:
        await limiter.close()


@asynccontextmanager
async def away(redis: Redis) -> AsyncIterator[None]:
    """Nothing can be changed there meanwhile, and nothing is forgotten."""
    await pause(redis)
    try:
        yield
    finally:
        await redis.client_unpause()


async def pause(redis: Redis) -> None:
    await redis.client_pause(600_000, all=False)


async def let_in(limiter: Limiter, holder: Holder = KEY) -> Record:
    exchange = Exchange(cast(Any, None), {})
    exchange.record = Record(exchange, "chat")
    await limiter.admit(exchange, (holder,), ASKED)
    return exchange.record


def lease_of(record: Record) -> str:
    assert isinstance(record.admission, Admission)
    return record.admission.id


async def until(done: Callable[[], Awaitable[Any]]) -> None:
    end = asyncio.get_running_loop().time() + PATIENCE
    while not await done():
        assert asyncio.get_running_loop().time() < end
        await asyncio.sleep(0.01)


async def until_settled(redis: Redis, record: Record) -> None:
    async def gone() -> bool:
        return await redis.zscore(OPEN, lease_of(record)) is None

    await until(gone)


async def until_when(redis: Redis, record: Record) -> float:
    """Its lease lasts, in Redis's time."""
    lasts = await redis.zscore(OPEN, lease_of(record))
    assert isinstance(lasts, float)
    return lasts


async def reserved(redis: Redis) -> float:
    return float(await redis.hget(USED, "day_tokens") or 0)


async def test_who_was_let_in_without_asking_gives_nothing_back(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST", 0.3)
    async with limiting(redis) as limiter:
        async with away(redis):
            asked, resting = await let_in(limiter), await let_in(limiter)
        assert (lease_of(asked), lease_of(resting), limiter.reachable) == ("", "", False)

        async def leased() -> bool:
            return bool(lease_of(await let_in(limiter)))

        await until(leased)
        assert limiter.reachable
        last = await let_in(limiter)
        assert await reserved(redis) == 2 * RESERVED
        for record in (asked, resting, last):
            limiter.ended(record)
        await until_settled(redis, last)
        assert await reserved(redis) == RESERVED


async def test_redis_is_left_alone_for_a_while(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests need not all wait to learn that it is away."""
    monkeypatch.setattr(module, "_REST", PATIENCE)
    async with limiting(redis, when_unreachable="closed") as limiter:
        async with away(redis):
            with pytest.raises(CallError) as first:
                await let_in(limiter)
        with pytest.raises(CallError) as second:
            await let_in(limiter)
        assert [each.value.reason for each in (first, second)] == [Reason.OVERLOADED] * 2
        assert await redis.keys() == []


async def test_one_at_a_time_tries_whether_redis_is_there_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_REST", 0.0)
    asked = 0
    ask = SharedLimits.admit

    async def counted(shared: SharedLimits, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await ask(shared, *arguments)

    monkeypatch.setattr(SharedLimits, "admit", counted)
    async with limiting(redis) as limiter, away(redis):
        await let_in(limiter)
        assert not limiter.reachable
        await asyncio.gather(*(let_in(limiter) for _ in range(5)))
        assert asked == 2


async def test_a_busy_gateway_does_not_take_redis_for_gone(redis: Redis) -> None:
    """A connection to it takes some turns of the loop, and each may be long."""

    async def run() -> str:
        async with limiting(redis) as limiter:
            asking = asyncio.create_task(let_in(limiter))
            while not asking.done():
                time.sleep(0.2)  # noqa: ASYNC251 (the loop is busy)
                await asyncio.sleep(0)
            return lease_of(await asking)

    assert await asyncio.to_thread(uvloop.run, run())


async def test_what_ended_while_redis_was_away_is_settled_later(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REST", 0.3)
    async with limiting(redis) as limiter:
        first, second = await let_in(limiter), await let_in(limiter)

        async def noticed() -> bool:
            return not limiter.reachable

        async def noticed_again() -> bool:
            return limiter.reachable

        async with away(redis):
            limiter.ended(first)
            limiter.ended(second)
            await until(noticed)
        await until_settled(redis, second)
        assert await redis.zcard(OPEN) == 0
        assert await reserved(redis) == 0  # each once
        await until(noticed_again)


async def test_what_has_just_ended_is_settled_at_the_end(redis: Redis) -> None:
    async with limiting(redis) as limiter:
        records = [await let_in(limiter) for _ in range(3)]
        for record in records[:2]:
            limiter.ended(record)
    assert await redis.zrange(OPEN, 0, -1) == [lease_of(records[2]).encode()]
    assert await reserved(redis) == RESERVED


async def test_the_end_does_not_wait_for_redis(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with limiting(redis) as limiter:
        records = [await let_in(limiter) for _ in range(2)]
        await pause(redis)
        for record in records:
            limiter.ended(record)
    assert "limits: 2 requests are not settled" in caplog.messages
    assert await redis.zcard(OPEN) == 2


async def test_a_lease_is_renewed_while_its_request_is_open(redis: Redis) -> None:
    """Also after a time for which Redis was away."""
    async with limiting(redis, 0.9) as limiter:
        record = await let_in(limiter)

        async def renewed() -> None:
            before = await until_when(redis, record)

            async def later() -> bool:
                return await until_when(redis, record) > before

            await until(later)

        async def noticed() -> bool:
            return not limiter.reachable

        await renewed()
        async with away(redis):
            await until(noticed)
        await renewed()


async def test_nothing_is_renewed_of_what_was_refused_or_has_ended(redis: Redis) -> None:
    async with limiting(redis, 0.6) as limiter:
        record = await let_in(limiter, ONE)
        with pytest.raises(CallError) as raised:
            await let_in(limiter, ONE)
        assert raised.value.reason is Reason.RATE_LIMITED
        limiter.ended(record)
        await until_settled(redis, record)
        await redis.config_resetstat()

        async def renewed_thrice() -> bool:
            stats = await redis.info("commandstats")
            return bool(stats.get("cmdstat_time", {}).get("calls", 0) >= 3)

        await until(renewed_thrice)
        assert "cmdstat_zadd" not in await redis.info("commandstats")

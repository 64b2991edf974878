"""What stands in Redis, and for how long."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis
from support.upstream import PATIENCE

from gateway.limits.policy import Holder, Limits, Refusal
from gateway.limits.shared import SharedLimits

ONE, TWO = (Holder("key:k", "a", Limits(concurrent=most)) for most in (1, 2))


async def let_in(limits: SharedLimits, holder: Holder, request: str) -> bool:
    found = await limits.admit([holder], 1, request, 1_790_000_000.0, "2026-09-21", "2026-09")
    return not isinstance(found, Refusal)


async def settle(limits: SharedLimits, request: str) -> None:
    await limits.settle([ONE], 1, 1, 0.5, request, "2026-09-21", "2026-09")


async def test_each_lease_runs_out_by_itself(redis: Redis) -> None:
    """Though others of the same holder are renewed all the time."""
    limits = SharedLimits(redis, 0.3)
    assert await let_in(limits, TWO, "dead")
    assert await let_in(limits, TWO, "alive")
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    while not await let_in(limits, TWO, "next"):
        assert loop.time() < until
        await limits.renew([([TWO], "alive")])


async def test_a_lease_that_was_given_back_is_not_renewed(redis: Redis) -> None:
    limits = SharedLimits(redis, 30.0)
    assert await let_in(limits, ONE, "1")
    await settle(limits, "1")
    await limits.renew([([ONE], "1")])
    assert await let_in(limits, ONE, "2")


async def test_no_more_than_a_minutes_worth_comes_back(redis: Redis) -> None:
    limits, quick = SharedLimits(redis, 30.0), Holder("key:q", "a", Limits(requests_per_minute=60_000))
    for request in ("1", "2"):
        found = await limits.admit([quick], 0, request, 1_790_000_000.0, "2026-09-21", "2026-09")
        assert not isinstance(found, Refusal)
        assert found[0].remaining_requests == 59_999
        await asyncio.sleep(0.05)  # fifty requests' worth


async def test_nothing_stays_for_ever(redis: Redis) -> None:
    limits = SharedLimits(redis, 30.0)
    await settle(limits, "of somebody who is forgotten")
    assert await redis.keys() == []
    assert await let_in(limits, ONE, "1")
    await limits.renew([([ONE], "1")])
    await settle(limits, "1")
    assert await let_in(limits, ONE, "2")
    keys = await redis.keys()
    assert len(keys) == 2
    assert all([await redis.ttl(key) > 0 for key in keys])

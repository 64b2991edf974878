"""Limits in this process and in Redis: the same steps, so the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from support.redis import Missing, redis_server

from gateway.limits.local import LocalLimits, periods, until_next
from gateway.limits.policy import Holder, Limits, Refusal, Standing, duration, headers, standing
from gateway.limits.shared import SharedLimits
from trestle.errors import Reason

NOON = 1_790_000_000.0


class Kept:
    """Limits of either kind, asked alike. Redis has a clock of its own, and it is its ids that are let in."""

    def __init__(self, shared: SharedLimits | None) -> None:
        self.shared = shared
        self.local = LocalLimits()
        self.ids = 0

    async def admit(self, *holders: Holder, tokens: int = 0, now: float = NOON) -> Sequence[Standing] | Refusal:
        if self.shared is None:
            return self.local.admit(holders, tokens, now)
        self.ids += 1
        return await self.shared.admit(holders, tokens, str(self.ids), now, *periods(now))

    async def settle(
        self, *holders: Holder, reserved: int = 0, used: int = 0, cost: float = 0.0, began: float = NOON
    ) -> None:
        if self.shared is None:
            self.local.settle(holders, reserved, used, cost, began)
        else:
            await self.shared.settle(holders, reserved, used, cost, str(self.ids), *periods(began))

    async def refused(self, *holders: Holder, **asked: Any) -> str:
        """The limit that refuses; empty where none does."""
        found = await self.admit(*holders, **asked)
        return found.limit if isinstance(found, Refusal) else ""


@pytest_asyncio.fixture(params=["process", "redis"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    if request.param == "process":
        yield Kept(None)
        return
    try:
        with redis_server(tmp_path) as server:
            client = Redis.from_url(server.url)
            yield Kept(SharedLimits(client, 30.0))
            await client.aclose()
    except Missing as missing:
        pytest.skip(str(missing))


def key(**limits: Any) -> Holder:
    return Holder("key:k", "a", Limits(**limits))


def account(**limits: Any) -> Holder:
    return Holder("account:a", "a", Limits(**limits))


async def test_requests_of_a_minute(kept: Kept) -> None:
    limited = key(requests_per_minute=3)
    told = [await kept.admit(limited) for _ in range(3)]
    assert [each[0].remaining_requests for each in told if not isinstance(each, Refusal)] == [2, 1, 0]
    found = await kept.admit(limited)
    assert isinstance(found, Refusal)
    assert found.limit == "requests_per_minute"
    assert 19 < found.retry_after <= 20


async def test_tokens_of_a_minute_are_what_was_used_and_not_what_was_reserved(kept: Kept) -> None:
    limited = key(tokens_per_minute=1000)
    await kept.admit(limited, tokens=600)
    assert await kept.refused(limited, tokens=600) == "tokens_per_minute"
    await kept.settle(limited, reserved=600, used=100)
    assert await kept.refused(limited, tokens=600) == ""
    await kept.settle(limited, reserved=600, used=2000)
    assert await kept.refused(limited, tokens=1) == "tokens_per_minute"


async def test_a_request_larger_than_a_minutes_worth_is_let_in_when_all_of_it_is_there(kept: Kept) -> None:
    limited = key(tokens_per_minute=10)
    assert await kept.refused(limited, tokens=100) == ""
    assert await kept.refused(limited, tokens=1) == "tokens_per_minute"


async def test_requests_at_a_time(kept: Kept) -> None:
    limited = key(concurrent=2)
    assert [await kept.refused(limited) for _ in range(3)] == ["", "", "concurrent"]
    kept.ids = 1  # the first one's lease
    await kept.settle(limited)
    kept.ids = 10
    assert [await kept.refused(limited) for _ in range(2)] == ["", "concurrent"]


async def test_one_request_at_a_time(kept: Kept) -> None:
    limited = key(concurrent=1)
    for _ in range(3):
        assert [await kept.refused(limited), await kept.refused(limited)] == ["", "concurrent"]
        kept.ids -= 1  # the one that was let in
        for _ in range(2):
            await kept.settle(limited)  # a second time changes nothing
        kept.ids += 1


@pytest.mark.parametrize("period", ["day", "month"])
async def test_tokens_of_a_day_or_month(kept: Kept, period: str) -> None:
    limited = key(**{f"tokens_per_{period}": 100})
    assert await kept.refused(limited, tokens=1000) == "", "a first one is let in, whatever it may become"
    await kept.settle(limited, reserved=1000, used=60)
    assert await kept.refused(limited, tokens=50) == f"tokens_per_{period}"
    assert await kept.refused(limited, tokens=40) == ""
    await kept.settle(limited, reserved=40, used=40)
    assert await kept.refused(limited, tokens=0) == f"tokens_per_{period}"
    later = NOON + (1 if period == "day" else 31) * 86400
    assert await kept.refused(limited, tokens=50, now=later) == ""


@pytest.mark.parametrize("period", ["day", "month"])
async def test_cost_of_a_day_or_month(kept: Kept, period: str) -> None:
    limited = key(**{f"cost_per_{period}": 1.5})
    assert await kept.refused(limited) == ""
    await kept.settle(limited, cost=1.0)
    assert await kept.refused(limited) == ""
    await kept.settle(limited, cost=0.75)
    assert await kept.refused(limited) == f"cost_per_{period}"


async def test_who_is_refused_by_one_has_used_nothing_of_the_other(kept: Kept) -> None:
    own, shared = key(requests_per_minute=100), account(requests_per_minute=1)
    assert await kept.refused(own, shared) == ""
    for _ in range(3):
        found = await kept.admit(own, shared)
        assert isinstance(found, Refusal)
        assert found.holder == shared
    told = await kept.admit(own)
    assert not isinstance(told, Refusal)
    assert told[0].remaining_requests == 98


async def test_new_limits_count_at_once(kept: Kept) -> None:
    for _ in range(5):
        assert await kept.refused(key()) == ""
    told = await kept.admit(key(requests_per_minute=3))
    assert not isinstance(told, Refusal)
    assert told[0].remaining_requests == 2
    assert [await kept.refused(key(requests_per_minute=3)) for _ in range(3)] == ["", "", "requests_per_minute"]
    told = await kept.admit(key(requests_per_minute=10))
    assert not isinstance(told, Refusal)
    assert told[0].remaining_requests == 6, "what was used stays used"


def test_a_minutes_worth_comes_back_evenly() -> None:
    limits, limited = LocalLimits(), key(requests_per_minute=60)
    for _ in range(60):
        assert not isinstance(limits.admit([limited], 0, NOON), Refusal)
    assert isinstance(limits.admit([limited], 0, NOON + 0.5), Refusal)
    assert not isinstance(limits.admit([limited], 0, NOON + 1), Refusal)
    assert isinstance(limits.admit([limited], 0, NOON + 1), Refusal)
    assert isinstance(limits.admit([limited], 0, NOON - 100), Refusal), "a clock that is set back gives nothing"
    assert not isinstance(limits.admit([limited], 0, NOON + 200), Refusal)


def test_a_clock_that_was_wrong_for_a_while_does_no_harm() -> None:
    limits, limited, wrong = LocalLimits(), key(requests_per_minute=2), NOON + 40 * 86400
    for now in (NOON, wrong, wrong):
        assert not isinstance(limits.admit([limited], 0, now), Refusal)
    assert isinstance(limits.admit([limited], 0, NOON), Refusal), "being set back gives nothing"
    assert not isinstance(limits.admit([limited], 0, NOON + 31), Refusal), "and time goes on"


def test_what_was_used_before_is_remembered() -> None:
    limits, limited = LocalLimits(), key(tokens_per_day=100, cost_per_month=5.0)
    day, month = periods(NOON)
    limits.remember("key:k", {day: (99, 1.0), month: (500, 4.0)}, NOON)
    found = limits.admit([limited], 10, NOON)
    assert isinstance(found, Refusal)
    assert found.limit == "tokens_per_day"
    assert found.retry_after == until_next("tokens_per_day", NOON)


def test_what_was_not_used_before_is_not_remembered() -> None:
    limits, limited = LocalLimits(), key(tokens_per_day=10, cost_per_day=1.0)
    limits.remember("key:k", {"2026-01-01": (99, 99.0)}, NOON)
    assert not isinstance(limits.admit([limited], 10, NOON), Refusal)


@pytest.mark.parametrize(("limit", "spent"), [("cost_per_day", (0, 2.0)), ("cost_per_month", (0, 2.0))])
def test_cost_of_before_is_added_to_that_of_now(limit: str, spent: tuple[int, float]) -> None:
    limits, limited = LocalLimits(), key(**{limit: 3.0})
    day, month = periods(NOON)
    assert not isinstance(limits.admit([limited], 0, NOON), Refusal)
    limits.settle([limited], 0, 0, 0.5, NOON)
    limits.remember("key:k", {day: spent, month: spent}, NOON)
    assert not isinstance(limits.admit([limited], 0, NOON), Refusal)
    limits.settle([limited], 0, 0, 0.5, NOON)
    found = limits.admit([limited], 0, NOON)
    assert isinstance(found, Refusal)
    assert found.limit == limit


@pytest.mark.parametrize(
    ("holder", "tokens", "seconds", "expected"),
    [
        (key(requests_per_minute=1), 0, 0, 60.0),
        (key(requests_per_minute=1), 0, 45, 15.0),
        (key(tokens_per_minute=600), 500, 0, 40.0),
        (key(tokens_per_minute=600), 9000, 0, 50.0),
        (key(tokens_per_minute=600), 500, 30, 10.0),
        (key(concurrent=1), 0, 45, 1.0),
    ],
)
def test_how_long_to_wait(holder: Holder, tokens: int, seconds: float, expected: float) -> None:
    """tokens: of a second request, so many seconds after a first one that took 500."""
    limits = LocalLimits()
    limits.admit([holder], 500, NOON)
    found = limits.admit([holder], tokens, NOON + seconds)
    assert isinstance(found, Refusal)
    assert found.retry_after == expected


async def test_what_was_reserved_and_not_used_is_all_given_back(kept: Kept) -> None:
    limited = key(tokens_per_day=100, tokens_per_month=100)
    assert await kept.refused(limited, tokens=10) == ""
    await kept.settle(limited, reserved=10, used=0)
    assert await kept.refused(limited, tokens=1000) == "", "as the first one"


async def test_what_is_given_back_twice_is_given_back_once(kept: Kept) -> None:
    """A day's tokens are never less than none."""
    limited = key(tokens_per_day=100)
    assert await kept.refused(limited, tokens=50) == ""
    for _ in range(2):
        await kept.settle(limited, reserved=50, used=0)
    assert await kept.refused(limited, tokens=60) == ""
    assert await kept.refused(limited, tokens=60) == "tokens_per_day"


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("month", 31)])
async def test_what_began_before_counts_where_it_began(kept: Kept, period: str, days: int) -> None:
    limited, later = key(**{f"tokens_per_{period}": 100, f"cost_per_{period}": 1.0}), NOON + days * 86400
    for now in (NOON, later):
        assert await kept.refused(limited, tokens=10, now=now) == ""
    await kept.settle(limited, reserved=10, used=1000, cost=5.0, began=NOON)
    assert await kept.refused(limited, tokens=50, now=later) == ""


async def test_a_lease_that_is_not_renewed_runs_out(tmp_path: Path) -> None:
    try:
        with redis_server(tmp_path) as server:
            client = Redis.from_url(server.url)
            kept = Kept(SharedLimits(client, 0.3))
            limited = key(concurrent=1)
            assert await kept.refused(limited) == ""
            assert kept.shared is not None
            await kept.shared.renew([([limited], "1")])
            assert await kept.refused(limited) == "concurrent"
            async with asyncio.timeout(30):
                while await kept.refused(limited):
                    pass
            await client.aclose()
    except Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *[(0, "0ms"), (0.0201, "21ms"), (0.5, "500ms"), (1, "1s"), (7.2, "8s")],
        *[(60, "1m0s"), (359.5, "6m0s"), (3600, "1h0m0s"), (3720, "1h2m0s")],
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_how_a_holder_stands() -> None:
    limits, limited = LocalLimits(), [key(requests_per_minute=6, tokens_per_minute=600), account()]
    for used in (1, 2):
        told = limits.admit(limited, 100, NOON)
        assert told == [
            Standing(limited[0], 6 - used, 10.0 * used, 600 - 100 * used, 10.0 * used),
            Standing(limited[1], 0, 0.0, 0, 0.0),
        ]
    limits.settle(limited, 100, 5100, 0.0, NOON)
    told = limits.admit([key(requests_per_minute=6)], 0, NOON + 10)
    assert told == [Standing(key(requests_per_minute=6), 4, 20.0, 0, 0.0)], "one has come back, and one is used"
    told = limits.admit([key(tokens_per_minute=600)], 0, NOON + 10_000)
    assert told == [Standing(key(tokens_per_minute=600), 0, 0.0, 600, 0.0)], "never more than a minute's worth"


def test_who_used_more_than_a_minutes_worth_has_nothing_left() -> None:
    limits, limited = LocalLimits(), key(requests_per_minute=5, tokens_per_minute=600)
    assert limits.admit([limited], 900, NOON) == [Standing(limited, 4, 12.0, 0, 90.0)]
    assert standing(limited, -1.0, -60.0) == Standing(limited, 0, 72.0, 0, 66.0)


def test_the_day_and_month_of_an_instant() -> None:
    assert periods(NOON) == ("2026-09-21", "2026-09")
    assert periods(1_798_761_599.9) == ("2026-12-31", "2026-12")
    assert periods(1_798_761_600.0) == ("2027-01-01", "2027-01")


@pytest.mark.parametrize(
    ("holder", "limit", "message", "code"),
    [
        (key(requests_per_minute=3), "requests_per_minute", "This API key may use 3 requests per minute", None),
        (account(tokens_per_minute=1000), "tokens_per_minute", "This account may use 1000 tokens per minute", None),
        (key(concurrent=2), "concurrent", "This API key may use 2 requests at a time", None),
        (account(tokens_per_day=5), "tokens_per_day", "This account may use 5 tokens per day", "insufficient_quota"),
        (key(cost_per_month=2.5), "cost_per_month", "This API key may use 2.5 cost per month", "insufficient_quota"),
    ],
)
def test_what_a_caller_is_told(holder: Holder, limit: str, message: str, code: str | None) -> None:
    error = Refusal(holder, limit, 7.5).error()
    assert error.message == f"{message}, and no more now."
    assert (error.reason, error.code, error.retry_after) == (
        Reason.RATE_LIMITED,
        code or "rate_limit_exceeded",
        7.5,
    )
    assert Refusal(holder, limit, 0.0).error().retry_after == 0.001, "at once would be no answer"


@pytest.mark.parametrize(
    ("limits", "budgets"),
    [
        ({}, False),
        ({"requests_per_minute": 1, "tokens_per_minute": 1, "concurrent": 1}, False),
        ({"tokens_per_day": 1}, True),
        ({"tokens_per_month": 1}, True),
        ({"cost_per_day": 0.5}, True),
        ({"cost_per_month": 0.5}, True),
    ],
)
def test_limits_of_a_day_or_month(limits: dict[str, Any], budgets: bool) -> None:
    assert Limits(**limits).budgets is budgets


def test_headers_are_of_who_has_less_left() -> None:
    own, shared = key(requests_per_minute=10, tokens_per_minute=100), account(requests_per_minute=1000)
    told = headers([Standing(own, 9, 6.0, 90, 6.0), Standing(shared, 3, 59.0, 0, 0.0)])
    assert told == {
        "x-ratelimit-limit-requests": "1000",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "59s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "90",
        "x-ratelimit-reset-tokens": "6s",
    }
    assert headers([]) == {}


@pytest.mark.parametrize(
    ("limit", "seconds"), [("tokens_per_day", 35_200.0), ("cost_per_month", 35_200.0 + 9 * 86400)]
)
def test_until_the_next_day_or_month(limit: str, seconds: float) -> None:
    assert until_next(limit, NOON) == seconds
    assert until_next(limit, 1_798_761_590.0) == 10.0, "the last day of a long month"

"""What further targets may cost, and what is learnt of them on a request's way: probes, races, a budget."""

from __future__ import annotations

import asyncio

import pytest
from support.takers import Heard
from support.targets import TEXT, after, fails, nothing, routed, says, silent
from support.upstream import PATIENCE

from gateway.routed import Budget, ended_early
from gateway.settings import RetrySettings
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2


def spent(budget: Budget) -> int:
    """How often one more target may be asked until no more may be."""
    return next(count for count in range(1000) if not budget.spend())


@pytest.mark.parametrize(("reserve", "expected"), [(1, 1), (3, 3), (2.5, 2)])
def test_the_reserve_may_be_spent_at_once(reserve: float, expected: int) -> None:
    assert spent(Budget(RetrySettings(ratio=0.0, reserve=reserve))) == expected


def test_requests_earn_and_never_more_than_the_reserve() -> None:
    budget = Budget(RetrySettings(ratio=0.5, reserve=3))
    for _ in range(100):
        budget.earn()
    assert spent(budget) == 3
    for expected in (0, 1, 0, 1):
        budget.earn()
        assert spent(budget) == expected
    for _ in range(4):
        budget.earn()
    assert spent(budget) == 2


class TestProbes:
    """A target's rest is over, and one request finds out whether it is well: if it finds out nothing, the next one."""

    async def test_that_the_caller_spoils(self) -> None:
        async with routed(failures=1) as two:
            two.first.will(fails(), fails(Reason.INVALID_REQUEST), says("Well again."))
            two.second.will(says("Second."))
            assert await two.text() == "Second."
            two.clock.now = 10.0
            with pytest.raises(CallError):
                await two.text()
            assert await two.text() == "Well again."
            assert two.second.asked == 1

    async def test_that_nobody_waits_for(self) -> None:
        async with routed(failures=1) as two:
            two.first.will(fails(), silent, says("Well again."))
            two.second.will(says("Second."))
            assert await two.text() == "Second."
            two.clock.now = 10.0
            two.first.came.clear()
            asked = asyncio.create_task(two.text())
            await asyncio.wait_for(two.first.came.wait(), PATIENCE)
            asked.cancel()
            await asyncio.wait([asked])
            assert await two.text() == "Well again."
            assert two.second.asked == 1


class TestRaces:
    async def test_who_both_fail_are_both_rested(self) -> None:
        gate = asyncio.Event()
        async with routed(failures=1, hedge_after=0.01) as two:
            two.first.will(after(gate, fails()))
            two.second.will(fails())
            asked = asyncio.create_task(two.text())
            await asyncio.wait_for(two.second.came.wait(), PATIENCE)
            gate.set()
            with pytest.raises(CallError):
                await asked
            assert two.resting == ["first", "second"]
            assert (two.first.asked, two.second.asked) == (1, 1)

    async def test_a_winner_that_fails_later_is_the_one_that_failed(self) -> None:
        gate = asyncio.Event()
        async with routed(failures=1, hedge_after=0.01) as two:
            two.first.will(silent)
            two.second.will(after(gate, fails(), TEXT))
            call = two.call()
            assert await call.read() == TEXT
            gate.set()
            with pytest.raises(CallError) as caught:
                await call.read()
            assert not call.move_on(caught.value), "nobody else is left"
            call.close()
            assert two.resting == ["second"]

    async def test_a_winner_has_its_failures_forgotten(self) -> None:
        async with routed(failures=2, hedge_after=0.01) as two:
            two.first.will(silent)
            two.second.will(says("Faster."))
            second = two.route.targets[1]
            two.network.breakers.failed(second, None)
            assert await two.text() == "Faster."
            two.network.breakers.failed(second, None)
            assert two.resting == []

    async def test_who_has_no_room_does_not_end_it(self) -> None:
        gate = asyncio.Event()
        async with routed(hedge_after=0.01, endpoint={"max_calls": 1, "queue": 0}) as two:
            await two.network.workers["second"].acquire()
            two.first.will(after(gate, says("Alone.")))
            asked = asyncio.create_task(two.text())
            await asyncio.wait([asked], timeout=0.2)
            gate.set()
            assert await asked == "Alone."
            assert two.second.asked == 0

    async def test_the_last_one_has_nobody_beside_it(self) -> None:
        gate = asyncio.Event()
        async with routed(hedge_after=0.01) as two:
            two.first.will(fails())
            two.second.will(after(gate, says("Second.")))
            asked = asyncio.create_task(two.text())
            await asyncio.wait_for(two.second.came.wait(), PATIENCE)
            await asyncio.wait([asked], timeout=0.2)
            gate.set()
            assert await asked == "Second."

    async def test_who_ends_without_a_word_has_spoken(self) -> None:
        async with routed(hedge_after=PATIENCE) as two:
            two.first.will(nothing)
            assert await two.text() == ""
            assert two.second.asked == 0


async def test_who_speaks_is_well_at_once() -> None:
    """Not only when it has ended."""
    heard: Heard[chat_pb2.ChatResponse] = Heard()
    async with routed(failures=2) as two:
        first = two.route.targets[0]
        two.network.breakers.failed(first, None)
        two.first.will(after(asyncio.Event(), says("Never."), TEXT))
        call = two.call()
        assert not await asyncio.wait_for(call.pass_to(heard.all), PATIENCE)
        assert heard == [TEXT]
        two.network.breakers.failed(first, None)
        assert two.resting == []
        call.close()


async def test_a_failure_that_only_its_reader_sees_is_the_targets_all_the_same() -> None:
    async with routed() as two:
        two.first.will(nothing)
        call = two.call()
        while await call.read() is not None:
            pass
        error = ended_early()
        assert call.move_on(error)
        call.close()
        assert [attempt.error for attempt in call.attempts] == [error]

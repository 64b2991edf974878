"""The limits in time of one call to one target."""

from __future__ import annotations

import asyncio

import pytest
from support.targets import STARTED, TEXT, after, routed, says, silent

from trestle.errors import CallError, Reason


async def test_who_began_in_time_may_take_as_long_as_it_likes() -> None:
    """Where nothing is said of silence."""
    gate = asyncio.Event()
    async with routed(first_token_timeout=1.0) as two:
        two.first.will(after(gate, says(" and more."), TEXT))
        asked = asyncio.create_task(two.text())
        await asyncio.wait([asked], timeout=1.5)
        gate.set()
        assert await asked == "So far and more."


async def test_silence_from_the_first_moment_is_silence() -> None:
    """Where nothing is said of the first content's time."""
    async with routed(idle_timeout=0.2) as two:
        two.first.will(silent)
        call = two.call()
        with pytest.raises(CallError, match="did not begin in time") as caught:
            await call.read()
        call.close()
        assert caught.value.reason is Reason.UPSTREAM_TIMEOUT


async def test_who_says_that_it_will_answer_is_not_silent() -> None:
    begun, gate = asyncio.Event(), asyncio.Event()
    async with routed(idle_timeout=2.0) as two:
        two.first.will(after(begun, after(gate, says("Late."), STARTED)))
        asked = asyncio.create_task(two.text())
        for each in (begun, gate):
            await asyncio.wait([asked], timeout=1.25)
            each.set()
        assert await asked == "Late."


async def test_it_began_before_it_spoke() -> None:
    async with routed() as two:
        two.first.will(after(asyncio.Event(), silent, STARTED))
        call = two.call()
        assert await call.read() == STARTED
        assert [(each.began, each.spoke) for each in call.attempts] == [(True, False)]
        call.close()


async def test_each_piece_begins_the_silence_anew() -> None:
    gates = [asyncio.Event() for _ in range(4)]
    step = says("the end.")
    for gate in gates:
        step = after(gate, step, TEXT)
    async with routed(idle_timeout=1.0) as two:
        two.first.will(step)
        asked = asyncio.create_task(two.text())
        for gate in reversed(gates):
            await asyncio.wait([asked], timeout=0.6)
            gate.set()
        assert await asked == "So far" * 4 + "the end."

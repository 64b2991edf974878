"""Races of a route's targets: who wins, what they cost, what is learnt of those that took part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.routes import BUSY, Two, ask_body, both_ways, good, route, silent
from support.upstream import PATIENCE, Cut, Framing, Gate, Reply


@both_ways
async def test_the_first_to_speak_wins(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, hedge_after=0.2) as two:
        two.first.will(silent(streamed))
        two.second.will(good(streamed, "Faster."))
        assert await two.text(streamed) == "Faster."
        await (await two.first.request()).closed()


@both_ways
async def test_who_speaks_in_time_is_not_raced(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, hedge_after=PATIENCE) as two:
        two.first.will(good(streamed))
        assert await two.text(streamed) == "Good."
        assert two.second.requests == []


@both_ways
async def test_a_race_is_won_by_who_does_not_fail(tmp_path: Path, streamed: bool) -> None:
    gate = Gate()
    async with route(tmp_path, hedge_after=0.2) as two:
        late = good(streamed)
        two.first.will(Reply([gate, *late.steps], headers=late.headers))
        two.second.will(BUSY)
        asked = asyncio.create_task(two.text(streamed))
        await two.second.request()
        gate.set()
        assert await asked == "Good."


@both_ways
async def test_a_race_that_both_lose_is_over(tmp_path: Path, streamed: bool) -> None:
    gate = Gate()
    async with route(tmp_path, hedge_after=0.01) as two:
        two.first.will(Reply([gate, Cut.CLOSE], framing=Framing.BARE))
        two.second.will(BUSY)
        asked = asyncio.create_task(two.client.ask("POST", "/v1/chat/completions", ask_body(streamed)))
        await two.second.request()
        gate.set()
        answer = await asked
        assert (answer.status, answer.headers["x-trestle-attempts"]) == (503, "2")
        assert (len(two.first.requests), len(two.second.requests)) == (1, 1)


async def test_a_race_costs_what_a_further_target_does(tmp_path: Path) -> None:
    gate = Gate()
    async with route(tmp_path, hedge_after=0.01, gateway={"retries": {"ratio": 0.0, "reserve": 1}}) as two:
        late, slow, both = good(False, "Alone."), good(False, "Faster."), Gate()
        two.first.will(silent(False), Reply([gate, *late.steps], headers=late.headers))
        two.second.will(Reply([both, *slow.steps], headers=slow.headers), good(False, "Nobody paid for it."))
        asked = asyncio.create_task(two.text(False))
        await two.first.request()
        both.set()
        assert await asked == "Faster."
        asked = asyncio.create_task(two.text(False))
        await two.first.request()
        await asyncio.wait([asked], timeout=0.5)
        gate.set()
        assert await asked == "Alone."
        assert len(two.second.requests) == 1


@asynccontextmanager
async def raced(folder: Path, rest: float) -> AsyncIterator[Two]:
    """A model `m` whose targets race at once, and `calm` with the same targets; they rest after one failure."""
    targets = [{"worker": "w", "upstream": name, "model": "m"} for name in ("first", "second")]
    models = [{"name": "m", "targets": targets, "hedge_after": 0.01}, {"name": "calm", "targets": targets}]
    async with route(folder, gateway={"models": models, "breaker": {"failures": 1, "rest": rest}}) as two:
        yield two


@both_ways
async def test_who_fails_in_a_race_is_rested_too(tmp_path: Path, streamed: bool) -> None:
    broken, whole = Gate(), Gate()
    async with raced(tmp_path, rest=3600) as two:
        late = good(streamed)
        two.first.will(Reply([broken, Cut.CLOSE], framing=Framing.BARE))  # asked once more it says no
        two.second.will(Reply([whole, *late.steps], headers=late.headers), good(streamed, "Alone."))
        asked = asyncio.create_task(two.text(streamed))
        await two.second.request()
        broken.set()
        await two.worker.logged("Chat failed")  # and so is on its way to the gateway, before what comes now
        whole.set()
        assert await asked == "Good."
        assert await two.text(streamed, "calm") == "Alone."


@both_ways
async def test_who_loses_a_race_may_be_asked_again(tmp_path: Path, streamed: bool) -> None:
    """Also where the race was to find out whether it is well again."""
    async with raced(tmp_path, rest=0.001) as two:
        gate, faster = Gate(), good(streamed, "Faster.")
        two.first.will(BUSY, silent(streamed), good(streamed, "Well again."))
        two.second.will(good(streamed), Reply([gate, *faster.steps], headers=faster.headers))
        assert await two.text(streamed, "calm") == "Good."
        await two.first.request()
        asked = asyncio.create_task(two.text(streamed))
        await two.first.request()
        gate.set()
        assert await asked == "Faster."
        assert await two.text(streamed, "calm") == "Well again."


async def test_who_was_left_in_a_race_may_be_asked_again(tmp_path: Path) -> None:
    async with raced(tmp_path, rest=0.001) as two:
        two.first.will(BUSY, silent(False), good(False, "Well again."))
        two.second.will(good(False), silent(False))
        assert await two.text(False, "calm") == "Good."
        upstreams = (two.first, two.second)
        for upstream in upstreams:
            await upstream.request()
        asked = asyncio.create_task(two.text(False))
        requests = [await upstream.request() for upstream in upstreams]
        asked.cancel()
        for request in requests:
            await request.closed()
        assert await two.text(False, "calm") == "Well again."

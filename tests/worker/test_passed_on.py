"""A body that a taker is given as it comes, on real sockets."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest
from support.takers import Heard
from support.upstream import PATIENCE, Cut, Gate, Reply, ScriptedUpstream
from support.upstream_client import body_of, calling, post

from trestle.errors import CallError, Reason
from worker.http1 import HIGH_WATER


@pytest.mark.parametrize("seed", range(4))
async def test_however_it_is_cut_and_however_often_it_stops(seed: int) -> None:
    rng = random.Random(seed)
    told = rng.randbytes(1_000_000)
    cuts = sorted(rng.sample(range(len(told)), 200))
    pieces = [told[at:end] for at, end in pairwise([0, *cuts, len(told)])]
    heard: Heard[bytes] = Heard()
    take = heard.as_long_as(lambda: rng.random() < 0.8)

    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([*pieces]), Reply([b"again"]))
        answer = await client.open(post(scripted.url), {})
        async with asyncio.timeout(PATIENCE):
            while not await answer.pass_to(take):
                pass
        answer.close()
        assert b"".join(heard) == told
        assert await body_of(await client.open(post(scripted.url), {})) == b"again"
        assert scripted.accepted == 1


async def test_who_stops_makes_the_upstream_wait() -> None:
    piece = bytes(HIGH_WATER)
    heard: Heard[bytes] = Heard()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([piece] * 1000))
        answer = await client.open(post(scripted.url), {})
        assert not await answer.pass_to(heard.once)
        request = await scripted.request()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request.answered.wait(), 0.5)
        assert len(heard) == 1
        async with asyncio.timeout(PATIENCE):
            assert await answer.pass_to(heard.all)
        answer.close()
        assert sum(map(len, heard)) == 1000 * HIGH_WATER


async def test_what_it_raises_is_raised() -> None:
    def fail(data: bytes) -> bool:
        raise ValueError(data)

    gate = Gate()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply.sse(gate, b"data: 1\n\n", Gate()))
        answer = await client.open(post(scripted.url), {})
        passing = asyncio.create_task(answer.pass_to(fail))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(ValueError, match="data: 1"):
            await passing
        answer.close()
        await (await scripted.request()).closed()


async def test_each_piece_begins_the_silence_anew() -> None:
    """And only what comes does: the last piece is followed by one whole silence."""
    gates = [Gate() for _ in range(4)]
    heard: Heard[bytes] = Heard()
    steps = [step for at, gate in enumerate(gates) for step in (gate, b"data: %d\n\n" % at)]
    async with ScriptedUpstream() as scripted, calling(scripted.url, idle_timeout=1.0) as client:
        scripted.will(Reply.sse(*steps, Gate()))
        answer = await client.open(post(scripted.url), {})
        passing = asyncio.create_task(answer.pass_to(heard.all))
        for gate in gates:
            await asyncio.sleep(0.6)  # the time itself is what this is about
            gate.set()
        with pytest.raises(CallError) as raised:
            await passing
        assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
        assert b"".join(heard) == b"".join(b"data: %d\n\n" % at for at in range(4))
        answer.close()


async def test_a_break_comes_after_all_that_came_before_it() -> None:
    gate = Gate()
    heard: Heard[bytes] = Heard()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply.sse(gate, b"data: 1\n\n", Cut.CLOSE))
        answer = await client.open(post(scripted.url), {})
        passing = asyncio.create_task(answer.pass_to(heard.all))
        await asyncio.sleep(0)
        gate.set()
        with pytest.raises(CallError) as raised:
            await passing
        assert raised.value.reason is Reason.UPSTREAM_TRUNCATED
        assert heard == [b"data: 1\n\n"]
        answer.close()

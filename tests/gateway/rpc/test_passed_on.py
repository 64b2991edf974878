"""Responses that a taker is given as they come, against a server that says what the test says."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.channels import said, soon
from support.http2_server import DATA, RST_STREAM, WINDOW_UPDATE, frame, message
from support.scripted import pair, raised
from support.takers import Heard

from gateway.rpc.connection import RECEIVE_WINDOW

CANCEL, INTERNAL = 8, 13


@pytest.mark.parametrize("seed", range(6))
async def test_however_they_are_cut_and_however_often_it_stops(seed: int) -> None:
    rng = random.Random(seed)
    told = [rng.randbytes(rng.choice((0, 1, 300, 20_000, 70_000))) for _ in range(40)]
    heard: Heard[Any] = Heard()
    take = heard.while_(lambda: rng.random() < 0.7)

    async with pair(cut=rng) as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(take))
        asked = await peer.request()
        await peer.body(asked.stream)
        await peer.send(peer.headers(asked.stream))

        async def tell() -> None:
            await peer.data(asked.stream, b"".join(message(said(each)) for each in told), rng)
            await peer.send(peer.status(asked.stream))

        telling = asyncio.create_task(tell())
        stops = 0
        while not await soon(passing):
            stops += 1
            passing = asyncio.create_task(call.pass_to(take))
        await telling
        assert [each.value for each in heard] == told
        assert stops > 0


async def test_who_takes_all_makes_room_for_more() -> None:
    """Nobody wakes up, and yet several windows come."""
    told = [bytes([at % 256]) * 10_000 for at in range(3 * RECEIVE_WINDOW // 10_000)]
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(heard.all))
        asked = await peer.request()
        await peer.body(asked.stream)
        await peer.send(peer.headers(asked.stream))
        await soon(peer.data(asked.stream, b"".join(message(said(each)) for each in told)))
        await peer.send(peer.status(asked.stream))
        assert await soon(passing)
        assert [each.value for each in heard] == told


async def test_who_stops_holds_a_window() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(heard.once))
        asked = await peer.request()
        await peer.body(asked.stream)
        response = message(said(bytes(10_000)))
        await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, response))
        assert not await soon(passing)
        for _ in range(RECEIVE_WINDOW // len(response) - 1):
            await peer.send(frame(DATA, 0, asked.stream, response))
        told = await peer.settle()
        assert not any(came.kind == WINDOW_UPDATE and came.stream for came in told)
        assert len(heard) == 1
        assert not await soon(call.pass_to(heard.once))
        assert len(heard) == 2
        call.cancel()


async def test_what_it_raises_is_raised_and_the_rest_is_kept() -> None:
    def fail(response: Any) -> bool:
        raise ValueError(response.value)

    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(fail))
        asked = await peer.request()
        await peer.body(asked.stream)
        responses = b"".join(message(said(each)) for each in (b"one", b"two"))
        await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, responses))
        with pytest.raises(ValueError, match="one"):
            await soon(passing)
        assert (await soon(call.read())).value == b"two"
        call.cancel()


async def test_a_status_comes_after_all_responses() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(heard.all))
        asked = await peer.request()
        await peer.body(asked.stream)
        first = peer.headers(asked.stream) + frame(DATA, 0, asked.stream, message(said(b"one")))
        await peer.send(first, peer.status(asked.stream, 5, ("grpc-message", "Gone.")))
        assert await raised(passing) == (5, "Gone.")
        assert [each.value for each in heard] == [b"one"]


async def test_one_that_cannot_be_read_ends_it() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(heard.all))
        asked = await peer.request()
        await peer.body(asked.stream)
        responses = message(said(b"one")) + message(b"\xff") + message(said(b"three"))
        await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, responses))
        assert await raised(passing) == (INTERNAL, "A response cannot be read.")
        assert [each.value for each in heard] == [b"one"]
        assert (await peer.frame(RST_STREAM)).number == CANCEL


async def test_who_was_cancelled_is_given_nothing_more() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call = plain.call()
        passing = asyncio.create_task(call.pass_to(heard.all))
        asked = await peer.request()
        await peer.body(asked.stream)
        await peer.send(peer.headers(asked.stream))
        await peer.settle()
        passing.cancel()
        # In the same turn of the loop, before the task has learnt of it.
        call.feed(message(said(b"late")), end=False)
        with pytest.raises(asyncio.CancelledError):
            await passing
        assert heard == []
        assert (await soon(call.read())).value == b"late"
        call.cancel()

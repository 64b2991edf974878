"""Responses that a taker is given as they come, against a server that says what the test says."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from support.channels import Plain, said, soon
from support.http2_server import DATA, RST_STREAM, WINDOW_UPDATE, Peer, frame, message
from support.scripted import begun, pair, raised
from support.takers import Heard

from gateway.rpc.call import Call, Taker
from gateway.rpc.connection import RECEIVE_WINDOW

CANCEL, INTERNAL = 8, 13


async def passed(plain: Plain, peer: Peer, taker: Taker) -> tuple[Call, asyncio.Task[bool], int]:
    """A call whose headers have come, who passes on what comes now, and the stream's number."""
    call = plain.call()
    passing = asyncio.create_task(call.pass_to(taker))
    asked = await peer.request()
    await peer.body(asked.stream)
    await peer.send(peer.headers(asked.stream))
    await peer.settle()
    return call, passing, asked.stream


@pytest.mark.parametrize("seed", range(6))
async def test_however_they_are_cut_and_however_often_it_stops(seed: int) -> None:
    rng = random.Random(seed)
    told = [rng.randbytes(rng.choice((0, 1, 300, 20_000, 70_000))) for _ in range(40)]
    heard: Heard[Any] = Heard()
    take = heard.as_long_as(lambda: rng.random() < 0.7)

    async with pair(cut=rng) as (plain, peer):
        call, passing, stream = await passed(plain, peer, take)

        async def tell() -> None:
            await peer.data(stream, b"".join(message(said(each)) for each in told), rng)
            await peer.send(peer.status(stream))

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
        _, passing, stream = await passed(plain, peer, heard.all)
        await soon(peer.data(stream, b"".join(message(said(each)) for each in told)))
        await peer.send(peer.status(stream))
        assert await soon(passing)
        assert [each.value for each in heard] == told


async def test_who_stops_holds_a_window() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call, passing, stream = await passed(plain, peer, heard.once)
        response = message(said(bytes(10_000)))
        await peer.send(frame(DATA, 0, stream, response))
        assert not await soon(passing)
        for _ in range(RECEIVE_WINDOW // len(response) - 1):
            await peer.send(frame(DATA, 0, stream, response))
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
        call, passing, stream = await passed(plain, peer, fail)
        responses = b"".join(message(said(each)) for each in (b"one", b"two"))
        await peer.send(frame(DATA, 0, stream, responses))
        with pytest.raises(ValueError, match="one"):
            await soon(passing)
        assert (await soon(call.read())).value == b"two"
        call.cancel()


async def test_who_reads_afterwards_reads() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call, passing, stream = await passed(plain, peer, heard.once)
        await peer.send(frame(DATA, 0, stream, message(said(b"one"))))
        assert not await soon(passing)
        reading = asyncio.create_task(call.read())
        await peer.settle()
        await peer.send(frame(DATA, 0, stream, message(said(b"two"))))
        assert (await soon(reading)).value == b"two"
        assert [each.value for each in heard] == [b"one"]
        call.cancel()


async def test_a_status_comes_after_all_responses() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        _, passing, stream = await passed(plain, peer, heard.all)
        first = frame(DATA, 0, stream, message(said(b"one")))
        await peer.send(first, peer.status(stream, 5, ("grpc-message", "Gone.")))
        assert await raised(passing) == (5, "Gone.")
        assert [each.value for each in heard] == [b"one"]


async def test_one_that_cannot_be_read_ends_it() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        _, passing, stream = await passed(plain, peer, heard.all)
        responses = message(said(b"one")) + message(b"\xff") + message(said(b"three"))
        await peer.send(frame(DATA, 0, stream, responses))
        assert await raised(passing) == (INTERNAL, "A response cannot be read.")
        assert [each.value for each in heard] == [b"one"]
        assert (await peer.frame(RST_STREAM)).number == CANCEL
        # It is no matter of the connection's other calls.
        other, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, message(said(b"well"))))
        assert (await soon(reading)).value == b"well"  # type: ignore[attr-defined]
        other.cancel()


async def test_who_was_cancelled_is_given_nothing_more() -> None:
    heard: Heard[Any] = Heard()
    async with pair() as (plain, peer):
        call, passing, _ = await passed(plain, peer, heard.all)
        passing.cancel()
        # In the same turn of the loop, before the task has learnt of it.
        call.feed(message(said(b"late")), end=False)
        with pytest.raises(asyncio.CancelledError):
            await passing
        assert heard == []
        assert (await soon(call.read())).value == b"late"
        call.cancel()

"""A connection: the room there is on it, for bytes and for calls, and its end. Against a server that says what the test
says."""

from __future__ import annotations

import asyncio
import random

import pytest
from support.channels import failure, opened, said, soon
from support.http2_server import (
    DATA,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    OK_HEAD,
    PING,
    RST_STREAM,
    WINDOW_UPDATE,
    Http2Server,
    frame,
    goaway,
    message,
    rst_stream,
    settings,
    window_update,
)
from support.scripted import answer, begun, pair, raised

from gateway.rpc import connection as module

CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE = 1, 4, 8, 14
CANCEL = 8
ENHANCE_YOUR_CALM = 11
ACK = 0x1


async def test_a_worker_that_goes_away() -> None:
    """What it has begun it ends; what it has not is asked of the next one, on a connection of its own."""
    async with Http2Server() as server, opened(server.address) as plain:
        reading = asyncio.create_task(plain.call(b"1").read())
        peer = await server.serving()
        one = await peer.request()
        other = asyncio.create_task(plain.call(b"2").read())
        await peer.request()
        await peer.send(goaway(one.stream))
        following = await server.serving()
        two = await following.request()
        assert await following.body(two.stream) == message(said(b"2"))
        await following.send(following.headers(two.stream), following.status(two.stream))
        assert await soon(other) is None
        await peer.send(peer.headers(one.stream), peer.status(one.stream))
        assert await soon(reading) is None
        await peer.ended()


async def test_what_no_worker_has_looked_at_is_tried_once_more() -> None:
    refused = 7
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer, request=b"again")
        await peer.send(rst_stream(asked.stream, refused))
        again = await peer.request()
        assert again.fields.keys() == asked.fields.keys()
        assert await peer.body(again.stream) == message(said(b"again"))
        await peer.send(rst_stream(again.stream, refused))
        assert await raised(reading) == (UNAVAILABLE, "The worker takes no calls now.")
        # One that has been answered was looked at, whatever is said of it then.
        _, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), rst_stream(asked.stream, refused))
        assert (await raised(reading))[0] == UNAVAILABLE
        assert not any(came.kind == HEADERS for came in await peer.settle())


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["asked", "headers", "half", "whole"])
async def test_a_connection_that_breaks(how: str, when: str) -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        response = message(said(b"all of it"))
        if when != "asked":
            await peer.send(peer.headers(asked.stream))
        if when in ("half", "whole"):
            await peer.send(frame(DATA, 0, asked.stream, response[: 8 if when == "half" else None]))
        await peer.settle()
        peer.close() if how == "close" else peer.reset()
        if when == "whole":
            assert (await soon(reading)).value == b"all of it"  # type: ignore[attr-defined]
            status, words = await failure(call)
        else:
            status, words = await raised(reading)
        assert status == UNAVAILABLE
        assert words.startswith("The connection to the worker broke: ")


async def test_calls_wait_in_turn_where_the_worker_takes_no_more() -> None:
    """The question for health is one of the three that it takes."""
    async with pair({MAX_CONCURRENT_STREAMS: 3}) as (plain, peer):
        calls = [plain.call(b"%d" % i) for i in range(5)]
        readings = [asyncio.create_task(call.read()) for call in calls]
        first, second = await peer.request(), await peer.request()
        hurried = plain.call(timeout=0.05)
        words = "Deadline Exceeded while the worker had as many calls as it takes"
        assert await failure(hurried) == (DEADLINE_EXCEEDED, words)
        calls[2].cancel()
        assert (await raised(readings[2]))[0] == CANCELLED
        assert not any(came.kind == HEADERS for came in await peer.settle())
        await peer.send(peer.headers(first.stream), peer.status(first.stream))
        third = await peer.request()
        assert await peer.body(third.stream) == message(said(b"3"))
        await peer.send(rst_stream(second.stream, 7))  # it makes room for who waits, and then waits itself
        fourth = await peer.request()
        assert await peer.body(fourth.stream) == message(said(b"4"))
        await peer.send(settings({MAX_CONCURRENT_STREAMS: 4}))
        again = await peer.request()
        assert await peer.body(again.stream) == message(said(b"1"))
        for asked in (third, fourth, again):
            await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        for i in (0, 1, 3, 4):
            assert await soon(readings[i]) is None


async def test_calls_that_wait_for_room_go_to_the_next_connection_when_this_one_breaks() -> None:
    async with Http2Server() as server, opened(server.address) as plain:
        readings = [asyncio.create_task(plain.call(b"%d" % i).read()) for i in range(3)]
        peer = await server.serving({MAX_CONCURRENT_STREAMS: 2})
        await peer.request()
        peer.reset()
        assert (await raised(readings[0]))[0] == UNAVAILABLE
        following = await server.serving()
        for reading in readings[1:]:
            await answer(following, await following.request())
            assert await soon(reading) is not None


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        frame(DATA, 0, 0, b"x"),
        frame(HEADERS, 0x4, 99, b"\x88"),
        frame(HEADERS, 0x4, 3, b"\xff\xff\xff\xff\xff"),
        frame(WINDOW_UPDATE, 0, 0, b"\xff\xff\xff\xff"),
    ],
)
async def test_what_is_not_http2_ends_the_connection_and_its_calls(wrong: bytes) -> None:
    async with pair() as (plain, peer):
        _, reading, _ = await begun(plain, peer)
        await peer.send(wrong)
        status, words = await raised(reading)
        assert status == UNAVAILABLE
        assert words.startswith("The connection to the worker broke: ")
        await peer.ended()


async def test_a_call_that_is_given_up_leaves_the_window_to_others() -> None:
    """Two wait for the connection's window; the first is cancelled while it is sent."""
    async with pair({INITIAL_WINDOW_SIZE: 10_000_000}) as (plain, peer):
        first, second = plain.call(bytes(100_000)), plain.call(bytes(50_000))
        readings = [asyncio.create_task(call.read()) for call in (first, second)]
        one, other = await peer.request(), await peer.request()
        first.cancel()
        assert (await raised(readings[0]))[0] == CANCELLED
        reset = await peer.frame(RST_STREAM)
        assert (reset.stream, reset.number) == (one.stream, CANCEL)
        await peer.send(window_update(0, 60_000))
        assert await peer.body(other.stream) == message(said(bytes(50_000)))
        assert all(came.stream == other.stream for came in await peer.settle() if came.kind == DATA)
        await peer.send(peer.status(other.stream))
        assert await soon(readings[1]) is None


@pytest.mark.parametrize("seed", range(3))
async def test_a_request_that_is_larger_than_the_window(seed: int) -> None:
    rng = random.Random(seed)
    request = rng.randbytes(3_000_000)
    async with pair() as (plain, peer):
        await peer.send(settings({INITIAL_WINDOW_SIZE: rng.choice((0, 1, 50_000))}))
        await peer.settle()
        reading = asyncio.create_task(plain.call(request).read())
        asked = await peer.request()
        for _ in range(12):  # bit by bit, then all
            await peer.send(window_update(rng.choice((0, asked.stream)), rng.randint(1, 100_000)))
        await peer.send(settings({INITIAL_WINDOW_SIZE: 2_000_000}), window_update(0, 10_000_000))
        await peer.send(window_update(asked.stream, 2_000_000))
        assert await peer.body(asked.stream) == message(said(request))
        await peer.send(peer.status(asked.stream))
        assert await soon(reading) is None


async def test_a_worker_that_answers_before_it_has_the_request() -> None:
    """What is left of it stays here; the stream is closed on both sides."""
    async with pair() as (plain, peer):
        reading = asyncio.create_task(plain.call(bytes(500_000)).read())
        asked = await peer.request()
        full = (*OK_HEAD, ("grpc-status", "8"), ("grpc-message", "full"))
        await peer.send(peer.headers(asked.stream, full, end=True))
        assert await raised(reading) == (RESOURCE_EXHAUSTED, "full")
        reset = await peer.frame(RST_STREAM)
        assert (reset.stream, reset.number) == (asked.stream, 0)
        await peer.send(window_update(asked.stream, 1_000_000), window_update(0, 1_000_000))
        assert not any(came.kind == DATA for came in await peer.settle())


@pytest.mark.parametrize(("code", "patience"), [(0, 2), (2, 2), (ENHANCE_YOUR_CALM, 4)])
async def test_one_that_complains_of_it_is_asked_less_often(code: int, patience: int) -> None:
    async with Http2Server() as server, opened(server.address) as plain:
        reading = asyncio.create_task(plain.call().read())
        peer = await server.serving()
        await answer(peer, await peer.request())
        assert await soon(reading) is not None
        await peer.send(goaway(99, code))
        await peer.ended()
        reading = asyncio.create_task(plain.call().read())
        following = await server.serving()
        await answer(following, await following.request())
        assert await soon(reading) is not None
        assert [each._patience for each in plain.channel.connections] == [patience]  # noqa: SLF001


class TestSilence:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "LOOK", 0.05)

    async def test_a_worker_is_asked_for_a_sign(self) -> None:
        async with pair() as (plain, peer):
            _, reading, asked = await begun(plain, peer)
            for _ in range(3):
                ping = await peer.frame(PING)
                assert ping.flags == 0
                await peer.send(frame(PING, ACK, 0, ping.payload))
            await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
            assert await soon(reading) is None

    async def test_one_that_gives_none_is_given_up(self) -> None:
        async with Http2Server() as server, opened(server.address) as plain:
            reading = asyncio.create_task(plain.call().read())
            peer = await server.serving()
            await peer.request()
            assert await raised(reading) == (UNAVAILABLE, "The connection to the worker broke: ping timeout.")
            await peer.ended()
            assert [came.kind for came in peer.came].count(PING) == 1
            reading = asyncio.create_task(plain.call().read())
            following = await server.serving()
            await answer(following, await following.request())
            assert await soon(reading) is not None

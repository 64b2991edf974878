"""Flow control, both ways: who is behind waits, and nobody else; and nothing grows for who does not read."""

from __future__ import annotations

import asyncio

import pytest
from support.http2 import WHOLE, Peer, connected, data, framed
from support.rpc import COUNT, ECHO, JOIN, Service, open_calls
from support.upstream import PATIENCE

from trestle.http2 import frames, toll
from trestle.http2.connection import CONNECTION_WINDOW, STREAM_WINDOW
from trestle.http2.frames import FLOW_CONTROL_ERROR, HEADERS, SETTINGS, rst_stream, settings, window_update


class TestWindows:
    async def test_of_a_stream_hold_its_answer_back(self, served: tuple[str, Service]) -> None:
        async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: 10}) as peer:
            await peer.send(peer.call(1, ECHO, b"x" * 30))
            assert (await peer.find(frames.DATA, 1)).payload == framed(b"x" * 30)[:10]
            await peer.send(window_update(1, 1))
            assert (await peer.find(frames.DATA, 1)).payload == b"x"
            await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 4}))  # seven are owed from now on
            assert [each.kind for each in await peer.pong()] == [SETTINGS]
            await peer.send(window_update(1, 6))
            assert await peer.pong() == []
            await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 9}))
            assert (await peer.frame()).kind == SETTINGS  # before it is acknowledged a wider window does not count
            assert len((await peer.frame()).payload) == 5
            await peer.send(window_update(1, 1000))
            answer = await peer.answer(1)
            assert (len(answer.data), answer.status) == (35 - 16, (0, ""))

    async def test_of_the_connection_is_shared(self, served: tuple[str, Service]) -> None:
        async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: 1 << 20}) as peer:
            for number in (1, 3, 5):
                await peer.send(peer.call(number, ECHO, bytes(100_000)))
            got = {1: 0, 3: 0, 5: 0}
            while sum(got.values()) < frames.FIRST_WINDOW:
                each = await peer.frame()
                if each.kind == frames.DATA:
                    got[each.stream] += len(each.payload)
            assert got == {1: frames.FIRST_WINDOW, 3: 0, 5: 0}
            await peer.send(rst_stream(1, frames.CANCEL))
            assert {each.kind for each in await peer.pong()} <= {HEADERS, frames.WINDOW_UPDATE}
            await peer.send(window_update(0, 50_000))
            while got[3] < 50_000:
                got[3] += len((await peer.find(frames.DATA, 3)).payload)
            await peer.send(window_update(0, 1 << 20))
            assert await self.rest(peer, (3, 5)) == {3: 100_005 - 50_000, 5: 100_005}

    async def rest(self, peer: Peer, numbers: tuple[int, ...]) -> dict[int, int]:
        """Bytes of DATA until these have ended."""
        got = dict.fromkeys(numbers, 0)
        open_ = set(numbers)
        while open_:
            each = await peer.frame()
            if each.kind == frames.DATA:
                got[each.stream] += len(each.payload)
            elif each.kind == HEADERS and each.flags & WHOLE:
                open_.discard(each.stream)
        return got

    async def test_small_steps_cost_each_stream_that_waits_nothing(self, served: tuple[str, Service]) -> None:
        """Of 2,000 answers that wait one goes on with each byte; the others are not even looked at."""
        async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: 1 << 20}) as peer:
            await peer.send(peer.call(1, ECHO, bytes(frames.FIRST_WINDOW - 5)))
            await peer.answer(1)
            for number in range(3, 4003, 2):
                await peer.send(peer.call(number, ECHO, b"x"))
            await peer.pong()
            await peer.send(window_update(0, 1) * 5_000)
            turns = [each.stream for each in await peer.pong() if each.kind == frames.DATA]
            assert turns == [*range(3, 4003, 2)] * 2 + [*range(3, 2003, 2)]

    async def test_nothing_is_left_of_answers_that_waited_for_it(self, served: tuple[str, Service]) -> None:
        """Whose calls were given up, though the window stays shut."""
        async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: 1 << 20}) as peer:
            await peer.send(peer.call(1, ECHO, bytes(frames.FIRST_WINDOW - 5)))
            await peer.answer(1)
            numbers = range(3, 43, 2)
            await peer.send(*(peer.call(number, ECHO, b"x") for number in numbers))
            await peer.pong()
            assert len(open_calls()) == len(numbers)
            await peer.send(*(rst_stream(number, frames.CANCEL) for number in numbers))
            await peer.pong()
            assert open_calls() == []

    async def test_of_a_stream_may_not_be_overrun(self, served: tuple[str, Service], peer: Peer) -> None:
        """Its client has answers to read before anything more is taken."""
        await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 0}), peer.headers(1, JOIN))
        await served[1].until(begun=1)
        await peer.send(data(1, framed(bytes(10)) * 10))
        await peer.pong()
        await peer.send(data(1, framed(bytes(10)) * (STREAM_WINDOW // 15 + 1)))
        assert await peer.goaway() == FLOW_CONTROL_ERROR

    async def test_of_the_connection_is_given_back_also_for_streams_that_have_ended(
        self, peer: Peer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(toll, "_FREE", CONNECTION_WINDOW)
        await peer.send(peer.headers(1, "/test.Test/None"))
        assert (await peer.answer(1)).status[0] == 12
        sent = 0
        while sent < CONNECTION_WINDOW // 2:
            await peer.send(data(1, bytes(frames.FRAME_BYTES)))
            sent += frames.FRAME_BYTES
        more = await peer.find(frames.WINDOW_UPDATE)
        assert int.from_bytes(more.payload, "big") == sent


async def test_a_client_that_does_not_read_is_not_read_either(served: tuple[str, Service]) -> None:
    """What is owed to it does not grow without bound: not by answers, and not by what is due without any."""
    async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW}) as peer:
        await peer.send(window_update(0, frames.LARGEST_WINDOW - frames.FIRST_WINDOW))
        number, request = 1, bytes(100_000)
        sending = asyncio.create_task(peer.send(peer.call(1, ECHO, request)))
        while (await asyncio.wait((sending,), timeout=0.5))[0]:
            number += 2
            assert number < 2_000, "200 MB of answers are kept for who does not read"
            sending = asyncio.create_task(peer.send(peer.call(number, ECHO, request)))
        for each in range(1, number, 2):
            assert (await peer.answer(each)).messages == [request]
        await asyncio.wait_for(sending, PATIENCE)
        assert (await peer.answer(number)).messages == [request]


async def test_a_method_that_writes_waits_for_who_does_not_read(served: tuple[str, Service]) -> None:
    async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: 1_000}) as peer:
        await peer.send(peer.call(1, COUNT, b"100 995"))
        assert len((await peer.find(frames.DATA, 1)).payload) == 1_000
        await peer.pong()
        assert served[1].written == 1
        await peer.send(window_update(0, 100_000), window_update(1, 100_000))
        assert len((await peer.answer(1)).data) == 99_000


async def test_a_method_that_waits_no_longer_keeps_nobody_else_waiting(served: tuple[str, Service]) -> None:
    """Two wait for a client that does not read; the first one's deadline passes, and then it reads."""
    async with connected(served[0], {frames.INITIAL_WINDOW_SIZE: frames.LARGEST_WINDOW}) as peer:
        await peer.send(window_update(0, frames.LARGEST_WINDOW - frames.FIRST_WINDOW))
        await peer.send(peer.call(1, COUNT, b"1000 1000000", ("grpc-timeout", "300m")))
        await served[1].until(begun=1)
        await peer.send(peer.call(3, COUNT, b"5 1000000"))
        await served[1].until(begun=2, cancelled=1, running=1)
        assert len((await peer.answer(3)).data) == 5 * 1_000_005

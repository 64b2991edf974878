"""One call: its request in whatever pieces, its responses, its status, and each way to end early."""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from support.http2 import WHOLE, Peer, connected, data, framed
from support.rpc import COUNT, ECHO, FAIL, HOLD, JOIN, TELL, UNREADABLE, Service, serving
from support.upstream import PATIENCE

from trestle.http2 import frames
from trestle.http2.connection import STREAM_WINDOW
from trestle.http2.frames import NO_ERROR, RST_STREAM, rst_stream, settings, window_update
from trestle.rpc.call import Call
from trestle.rpc.method import Method

TWO = (13, "The call has more than one request, or one that is not in gRPC's frame.")
CUT = (13, "The call ended before its request was whole.")
INTERNAL, UNIMPLEMENTED, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNKNOWN = 13, 12, 8, 4, 2
MOST = 100_000


@pytest_asyncio.fixture
async def service() -> AsyncIterator[tuple[str, Service]]:
    async with serving(max_message_bytes=MOST, limit_setting="test.most") as (address, service, _):
        yield address, service


@pytest_asyncio.fixture
async def peer(service: tuple[str, Service]) -> AsyncIterator[Peer]:
    async with connected(service[0], {}) as peer:
        yield peer


async def test_a_request_of_many_pieces(peer: Peer) -> None:
    await peer.send(peer.headers(1, ECHO), *(data(1, bytes((each,))) for each in framed(b"a b c")), data(1, b"", WHOLE))
    assert (await peer.answer(1)).messages == [b"a b c"]


async def test_one_that_is_larger_than_a_window() -> None:
    async with serving(max_message_bytes=4 * STREAM_WINDOW) as (address, _, _), connected(address, {}) as peer:
        await peer.send(window_update(0, 8 * STREAM_WINDOW), settings({frames.INITIAL_WINDOW_SIZE: 8 * STREAM_WINDOW}))
        request = framed(bytes(3 * STREAM_WINDOW))
        await peer.send(peer.headers(1, ECHO))
        sent, window = 0, STREAM_WINDOW
        while sent < len(request):
            size = min(window, len(request) - sent)
            sent, window = sent + size, window - size
            await peer.send(data(1, request[sent - size : sent], WHOLE if sent == len(request) else 0))
            if sent < len(request):
                window += int.from_bytes((await peer.find(frames.WINDOW_UPDATE, 1)).payload, "big")
        answer = await peer.answer(1)
        assert answer.messages == [bytes(3 * STREAM_WINDOW)]
        assert max(answer.sizes) == frames.FRAME_BYTES


NO_REQUESTS = [
    ([framed(b"abc")[:4]], CUT),
    ([framed(b"abc")[:-1]], CUT),
    ([framed(b"abc")[:-1], b""], CUT),
    ([framed(UNREADABLE)], (INTERNAL, "The request cannot be read.")),
    ([b"\1\0\0\0\1a"], (INTERNAL, "The request is not compressed as its headers say, or too large.")),
    ([b"\2\0\0\0\1a"], (INTERNAL, "The request is not compressed as its headers say, or too large.")),
]
NOT_ONE = [([b""], CUT), ([framed(b"a") + framed(b"b")], TWO), ([framed(b"a"), framed(b"b")], TWO)]


@pytest.mark.parametrize(
    ("method", "sent", "status"),
    [*((ECHO, *each) for each in [*NO_REQUESTS, *NOT_ONE]), *((JOIN, *each) for each in NO_REQUESTS)],
)
async def test_what_is_no_request(method: str, sent: list[bytes], status: tuple[int, str], peer: Peer) -> None:
    parts = [data(1, each, WHOLE if i == len(sent) - 1 else 0) for i, each in enumerate(sent)]
    await peer.send(peer.headers(1, method), *parts)
    answer = await peer.answer(1)
    assert (answer.status, answer.data) == (status, b"")
    assert await peer.pong() == []


@pytest.mark.parametrize("size", [MOST + 1, 2**32 - 1])
@pytest.mark.parametrize("method", [ECHO, JOIN])
async def test_one_that_is_too_large_need_not_be_sent_whole(method: str, size: int, peer: Peer) -> None:
    await peer.send(peer.headers(1, method), data(1, b"\0" + size.to_bytes(4, "big") + b"abc"))
    words = f"The request has {size} bytes, and may have {MOST} (test.most)."
    assert (await peer.answer(1)).status == (RESOURCE_EXHAUSTED, words)
    assert (await peer.find(RST_STREAM, 1)).code == NO_ERROR


async def test_a_method_that_streams_ends_with_what_cannot_be_read(service: tuple[str, Service], peer: Peer) -> None:
    """Also where nothing tells that there is no more: it does not wait for ever."""
    await peer.send(peer.headers(1, JOIN), data(1, framed(b"a") + framed(UNREADABLE) + framed(b"b")))
    answer = await peer.answer(1)
    assert (answer.messages, answer.status) == ([b"a"], (INTERNAL, "The request cannot be read."))
    await service[1].until(running=0)


async def test_requests_that_stream(peer: Peer) -> None:
    """Each is answered before the next one comes; then there are many at once."""
    await peer.send(window_update(0, 2 * MOST), peer.headers(1, JOIN), window_update(1, 2 * MOST))
    for request in (b"", b"a", bytes(MOST)):
        await peer.send(data(1, framed(request)))
        got = b""
        while len(got) < len(framed(request)):
            got += (await peer.find(frames.DATA, 1)).payload
        assert got == framed(request)
    await peer.send(data(1, framed(b"b") * 100, WHOLE))
    answer = await peer.answer(1)
    assert (answer.messages, answer.status) == ([b"b"] * 100, (0, ""))


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_compressed_requests(coding: str, compress: object, peer: Peer) -> None:
    assert callable(compress)
    request = b"abc " * 1000
    for i, (sent, status) in enumerate([
        (b"\1" + framed(compress(request))[1:], 0),
        (framed(request), 0),
        (b"\1" + framed(compress(b""))[1:], 0),
        (b"\1" + framed(compress(bytes(MOST)))[1:], 0),
        (b"\1" + framed(compress(bytes(MOST + 1)))[1:], INTERNAL),
        (b"\1" + framed(compress(bytes(30_000_000)))[1:], INTERNAL),
        (b"\1" + framed(compress(request)[:-1])[1:], INTERNAL),
        (b"\1" + framed(request)[1:], INTERNAL),
    ]):
        number = 2 * i + 1
        await peer.send(peer.headers(number, ECHO, ("grpc-encoding", coding)))
        await peer.send(window_update(0, MOST), window_update(number, MOST), data(number, sent, WHOLE))
        answer = await peer.answer(number)
        assert answer.status[0] == status, i
        if i < 2:
            assert answer.messages == [request]


async def test_a_coding_that_is_not_known(peer: Peer) -> None:
    await peer.send(peer.call(1, ECHO, b"", ("grpc-encoding", "zstd")))
    answer = await peer.answer(1)
    assert answer.status == (UNIMPLEMENTED, "Requests may be compressed by gzip or deflate.")
    assert answer.trailers["grpc-accept-encoding"] == "identity,deflate,gzip"


async def test_a_method_that_is_not_known(peer: Peer) -> None:
    await peer.send(peer.call(1, "/test.Test/None"), peer.headers(3, "/x\xff"))
    answer = await peer.answer(1)
    assert answer.status == (UNIMPLEMENTED, "There is no method /test.Test/None.")
    assert answer.fields == {}
    assert (await peer.answer(3)).status[0] == UNIMPLEMENTED
    assert (await peer.find(RST_STREAM, 3)).code == NO_ERROR


class TestStatuses:
    async def test_one_of_the_method(self, peer: Peer) -> None:
        await peer.send(peer.call(1, FAIL, b"NOT_FOUND"))
        answer = await peer.answer(1)
        assert answer.status == (5, "Gr%C3%BC%C3%9Fe: 100%25 %0A")
        assert (answer.trailers["x-name"], answer.trailers["x-bin"]) == ("a", "AP8=")
        assert answer.fields == {}

    @pytest.mark.parametrize("how", [b"raise", b"trailers", b"metadata"])
    async def test_of_a_method_that_fails(self, how: bytes, peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
        """Also where it is its own status, or its metadata, that cannot be said."""
        with caplog.at_level(logging.CRITICAL, "trestle"):
            await peer.send(peer.call(1, FAIL, how))
            answer = await peer.answer(1)
        assert answer.status == (UNKNOWN, "The test failed.")
        assert answer.trailers[":status"] == "200"

    async def test_it_waits_for_what_came_before(self, peer: Peer) -> None:
        await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 10}), peer.call(1, COUNT, b"2 20"))
        assert len((await peer.find(frames.DATA, 1)).payload) == 10
        assert await peer.pong() == []
        await peer.send(window_update(1, 40))
        answer = await peer.answer(1)
        assert (len(answer.data), answer.status) == (40, (0, ""))


class TestDeadlines:
    @pytest.mark.parametrize("timeout", ["1n", "0S", "20m"])
    @pytest.mark.parametrize("whole", [True, False])
    async def test_that_pass(self, timeout: str, whole: bool, peer: Peer) -> None:
        more = ("grpc-timeout", timeout)
        await peer.send(peer.call(1, HOLD, b"", more) if whole else peer.headers(1, HOLD, more))
        assert (await peer.answer(1)).status == (DEADLINE_EXCEEDED, "Deadline Exceeded")
        if not whole:
            assert (await peer.find(RST_STREAM, 1)).code == NO_ERROR
        assert await peer.pong() == []

    async def test_that_pass_during_the_method(self, service: tuple[str, Service], peer: Peer) -> None:
        await peer.send(peer.call(1, HOLD, b"", ("grpc-timeout", "100m")))
        await service[1].until(begun=1, cancelled=1)
        assert (await peer.answer(1)).status[0] == DEADLINE_EXCEEDED

    async def test_that_pass_while_the_answer_waits(self, peer: Peer) -> None:
        """A status would look as if all had been said before it."""
        await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 10}))
        await peer.send(peer.call(1, ECHO, bytes(20), ("grpc-timeout", "100m")))
        assert len((await peer.find(frames.DATA, 1)).payload) == 10
        assert (await peer.answer(1)).reset == frames.CANCEL
        await peer.send(window_update(1, 100))
        assert await peer.pong() == []

    @pytest.mark.parametrize("timeout", ["", "1", "S", "123456789S", "-1S", "1.5S", "1s", "1S "])
    async def test_that_are_none(self, timeout: str, peer: Peer) -> None:
        await peer.send(peer.call(1, ECHO, b"", ("grpc-timeout", timeout)))
        assert (await peer.answer(1)).status == (INTERNAL, "grpc-timeout is not what gRPC says it is.")

    async def test_that_are_far_away(self, peer: Peer) -> None:
        await peer.send(peer.call(1, TELL, b"", ("grpc-timeout", "99999999H")), peer.call(3, TELL))
        one = await peer.answer(1)
        assert 0 < float(one.messages[0]) <= 10 * 366 * 86400
        assert (await peer.answer(3)).messages == [b"None"]


class TestResets:
    async def test_cancel_the_method(self, service: tuple[str, Service], peer: Peer) -> None:
        await peer.send(peer.call(1, HOLD), peer.headers(3, JOIN))
        await service[1].until(begun=2)
        await peer.send(rst_stream(1, frames.CANCEL), rst_stream(3, frames.CANCEL))
        await service[1].until(cancelled=2)
        assert await peer.pong() == []

    async def test_before_the_method_has_begun(self, service: tuple[str, Service], peer: Peer) -> None:
        await peer.send(peer.call(1, HOLD), rst_stream(1, frames.CANCEL))
        await peer.send(peer.headers(3, ECHO), rst_stream(3, frames.CANCEL))
        assert await peer.pong() == []
        assert service[1].begun == 0

    @pytest.mark.parametrize("method", [b"2 20", b"1 20"])
    async def test_while_the_answer_waits(self, method: bytes, service: tuple[str, Service], peer: Peer) -> None:
        await peer.send(settings({frames.INITIAL_WINDOW_SIZE: 10}), peer.call(1, COUNT, method))
        assert len((await peer.find(frames.DATA, 1)).payload) == 10
        await peer.send(rst_stream(1, frames.CANCEL), window_update(1, 100), peer.call(3, ECHO, b"a"))
        assert (await peer.answer(3)).messages == [b"a"]
        await service[1].until(running=0, written=0)

    async def test_a_client_that_vanishes(self, service: tuple[str, Service]) -> None:
        """In each state of a call."""
        async with connected(service[0], {frames.INITIAL_WINDOW_SIZE: 10}) as peer:
            await peer.send(peer.call(1, HOLD), peer.headers(3, JOIN), peer.call(5, COUNT, b"2 20"))
            await peer.send(peer.headers(7, ECHO), data(7, framed(b"abc")[:6]), peer.call(9, ECHO, bytes(20)))
            await service[1].until(begun=3)
            await peer.find(frames.DATA, 9)
        await service[1].until(cancelled=3, running=0)

    async def test_a_client_that_has_no_more_to_say(self, service: tuple[str, Service], peer: Peer) -> None:
        await peer.send(peer.call(1, HOLD))
        await service[1].until(begun=1)
        peer.writer.write_eof()
        await service[1].until(cancelled=1)
        await peer.ended()


async def test_an_answer_that_comes_after_the_end_is_not_sent() -> None:
    """The method did not care that it was cancelled."""
    answered = asyncio.Event()

    async def stubborn(request: bytes, call: Call) -> bytes:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_soon(answered.set)
        return b"late"

    async with serving() as (address, _, server), connected(address, {}) as peer:
        server.add({"/test.Test/Stubborn": Method(stubborn, bytes, bytes)})
        await peer.send(peer.call(1, "/test.Test/Stubborn"))
        assert await peer.pong() == []
        await peer.send(rst_stream(1, frames.CANCEL))
        async with asyncio.timeout(PATIENCE):
            await answered.wait()
        assert await peer.pong() == []

"""What is asked for on a connection, and what is no HTTP/2: byte for byte."""

from __future__ import annotations

import random

import pytest
from support.http2 import WHOLE, Peer, connected, data, framed
from support.rpc import ECHO, HOLD, JOIN, TELL, Service, serving

from trestle.http2 import frames, toll
from trestle.http2.connection import STREAM_WINDOW
from trestle.http2.frames import (
    CONTINUATION,
    END_HEADERS,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    frame,
    rst_stream,
    settings,
    window_update,
)

MANY = 500


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too much in a second is too much however busy this machine is."""
    monkeypatch.setattr(toll, "_FREE", MANY)


@pytest.mark.parametrize("seed", range(3))
async def test_calls_that_come_in_pieces(served: tuple[str, Service], seed: int) -> None:
    async with connected(served[0], {}, random.Random(seed)) as peer:
        for i in range(20):
            request = b"x" * (i * i * 7)
            await peer.send(peer.call(2 * i + 1, ECHO, request, ("x-number", str(i))))
            answer = await peer.answer(2 * i + 1)
            assert (answer.messages, answer.status) == ([request], (0, ""))
            assert answer.fields == {":status": "200", "content-type": "application/grpc"}
        assert await peer.pong() == []


async def test_how_it_begins(served: tuple[str, Service]) -> None:
    async with connected(served[0]) as peer:
        first = await peer.frame()
        assert (first.kind, first.flags) == (SETTINGS, 0)
        values = dict(frames.read_settings(first.payload))
        assert values[frames.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
        assert values[frames.MAX_CONCURRENT_STREAMS] == 20_000
        assert await peer.find(frames.WINDOW_UPDATE)
        await peer.send(frames.PREFACE, settings({99: 7, frames.MAX_FRAME_SIZE: frames.FRAME_BYTES}))
        acknowledged = await peer.find(SETTINGS)
        assert (acknowledged.flags, acknowledged.payload) == (frames.ACK, b"")


def wrong(code: int, *sent: bytes) -> tuple[int, bytes]:
    return code, b"".join(sent)


BROKEN_OFF = frame(HEADERS, 0, 1, b"")
WRONG = {
    "a frame that is too large": wrong(FRAME_SIZE_ERROR, frame(frames.DATA, 0, 1, bytes(frames.FRAME_BYTES + 1))),
    "DATA of no stream": wrong(PROTOCOL_ERROR, data(0, b"x")),
    "DATA of a stream to come": wrong(PROTOCOL_ERROR, data(1, b"x")),
    "HEADERS of no stream": wrong(PROTOCOL_ERROR, frame(HEADERS, END_HEADERS, 0)),
    "HEADERS of an even stream": wrong(PROTOCOL_ERROR, frame(HEADERS, END_HEADERS, 2)),
    "HEADERS of nothing but padding": wrong(PROTOCOL_ERROR, frame(HEADERS, END_HEADERS | PADDED, 1, b"\5abc")),
    "HEADERS without their padding": wrong(FRAME_SIZE_ERROR, frame(HEADERS, END_HEADERS | PADDED, 1)),
    "HEADERS that cannot be read": wrong(frames.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, b"\x80")),
    "HEADERS that are cut": wrong(frames.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, b"\0\5abc")),
    "a table beyond its bound": wrong(frames.COMPRESSION_ERROR, frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f")),
    "a block that is broken off by DATA": wrong(PROTOCOL_ERROR, BROKEN_OFF, data(1, b"x")),
    "a block that is broken off by a PING": wrong(PROTOCOL_ERROR, BROKEN_OFF, frame(PING, 0, 0, bytes(8))),
    "a block that is broken off by an unknown frame": wrong(PROTOCOL_ERROR, BROKEN_OFF, frame(77, 0, 0)),
    "a block that another stream's follows": wrong(PROTOCOL_ERROR, BROKEN_OFF, frame(CONTINUATION, END_HEADERS, 3)),
    "CONTINUATION of nothing": wrong(PROTOCOL_ERROR, frame(CONTINUATION, END_HEADERS, 1)),
    "a block without end": wrong(ENHANCE_YOUR_CALM, BROKEN_OFF, *[frame(CONTINUATION, 0, 1, bytes(16_000))] * 3),
    "empty CONTINUATIONs without end": wrong(ENHANCE_YOUR_CALM, BROKEN_OFF, frame(CONTINUATION, 0, 1) * MANY),
    "PRIORITY of no stream": wrong(PROTOCOL_ERROR, frame(PRIORITY, 0, 0, bytes(5))),
    "PRIORITY of a wrong length": wrong(FRAME_SIZE_ERROR, frame(PRIORITY, 0, 1, bytes(4))),
    "RST_STREAM of no stream": wrong(PROTOCOL_ERROR, rst_stream(0, 0)),
    "RST_STREAM of a stream to come": wrong(PROTOCOL_ERROR, rst_stream(1, 0)),
    "RST_STREAM of a wrong length": wrong(FRAME_SIZE_ERROR, frame(RST_STREAM, 0, 1, bytes(5))),
    "SETTINGS of a stream": wrong(PROTOCOL_ERROR, frame(SETTINGS, 0, 1)),
    "SETTINGS of a wrong length": wrong(FRAME_SIZE_ERROR, frame(SETTINGS, 0, 0, bytes(5))),
    "SETTINGS that acknowledge with words": wrong(FRAME_SIZE_ERROR, frame(SETTINGS, frames.ACK, 0, bytes(6))),
    "SETTINGS of a frame that is too small": wrong(PROTOCOL_ERROR, settings({frames.MAX_FRAME_SIZE: 100})),
    "SETTINGS of a frame that is too large": wrong(PROTOCOL_ERROR, settings({frames.MAX_FRAME_SIZE: 1 << 24})),
    "SETTINGS of a window that is too large": wrong(FLOW_CONTROL_ERROR, settings({frames.INITIAL_WINDOW_SIZE: 2**31})),
    "SETTINGS of an odd push": wrong(PROTOCOL_ERROR, settings({frames.ENABLE_PUSH: 2})),
    "PUSH_PROMISE": wrong(PROTOCOL_ERROR, frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4))),
    "a PING of a stream": wrong(PROTOCOL_ERROR, frame(PING, 0, 1, bytes(8))),
    "a PING of a wrong length": wrong(FRAME_SIZE_ERROR, frame(PING, 0, 0, bytes(7))),
    "GOAWAY of a stream": wrong(PROTOCOL_ERROR, frame(GOAWAY, 0, 1, bytes(8))),
    "GOAWAY of a wrong length": wrong(FRAME_SIZE_ERROR, frame(GOAWAY, 0, 0, bytes(7))),
    "a window of nothing more": wrong(PROTOCOL_ERROR, window_update(0, 0)),
    "a window beyond its bound": wrong(FLOW_CONTROL_ERROR, window_update(0, frames.LARGEST_WINDOW)),
    "WINDOW_UPDATE of a stream to come": wrong(PROTOCOL_ERROR, window_update(1, 1)),
    "WINDOW_UPDATE of a wrong length": wrong(FRAME_SIZE_ERROR, frame(frames.WINDOW_UPDATE, 0, 0, bytes(5))),
    "too many PINGs": wrong(ENHANCE_YOUR_CALM, frame(PING, 0, 0, bytes(8)) * MANY),
    "too many SETTINGS": wrong(ENHANCE_YOUR_CALM, settings({}) * MANY),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_ends_the_connection(name: str, peer: Peer) -> None:
    code, sent = WRONG[name]
    await peer.send(sent)
    assert await peer.goaway() == code


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        frames.PREFACE + frame(PING, 0, 0, bytes(8)),
        frames.PREFACE + data(1, b""),
        frames.PREFACE + frame(77, 0, 0),
    ],
)
async def test_what_is_no_beginning(sent: bytes, served: tuple[str, Service]) -> None:
    async with connected(served[0]) as peer:
        await peer.send(sent)
        assert await peer.goaway() == PROTOCOL_ERROR


async def test_a_connection_that_is_given_up_names_the_calls_that_were_seen(peer: Peer) -> None:
    """Who is told that none was would make them once more elsewhere."""
    await peer.send(peer.call(1, HOLD), peer.call(3, HOLD), data(0, b"x"))
    last = (await peer.ended())[-1]
    assert (last.kind, int.from_bytes(last.payload[:4], "big")) == (GOAWAY, 3)


async def test_what_follows_an_error_is_not_read(served: tuple[str, Service], peer: Peer) -> None:
    await peer.send(data(0, b"x"), peer.call(1, HOLD), peer.call(3, ECHO))
    assert [each.kind for each in await peer.ended()][-1] == GOAWAY
    assert served[1].begun == 0


async def test_frames_that_mean_nothing_here_are_passed_over(peer: Peer) -> None:
    await peer.send(
        frame(77, 0xFF, 5, b"unknown"), frame(PRIORITY, 0, 7, bytes(5)), frames.goaway(0, 0), settings({}),
        frame(SETTINGS, frames.ACK, 0), frame(PING, frames.ACK, 0, bytes(8)),
    )  # fmt: skip
    await peer.send(peer.call(1, ECHO, b"a"))
    assert (await peer.answer(1)).messages == [b"a"]


async def test_padding_priority_reserved_bits_and_continuations(peer: Peer) -> None:
    block = peer.block(ECHO)
    with_all = frame(HEADERS, PADDED | frames.HAS_PRIORITY, 1 | 1 << 31, b"\3" + bytes(5) + block[:9] + bytes(3))
    rest = frame(CONTINUATION, 0, 1, block[9:10]) + frame(CONTINUATION, END_HEADERS, 1, block[10:])
    padded = frame(frames.DATA, PADDED, 1, b"\4" + framed(b"abc")[:6] + bytes(4))
    await peer.send(with_all, rest, padded, frame(frames.DATA, PADDED, 1, b"\0"))
    await peer.send(frame(frames.DATA, PADDED | WHOLE, 1, b"\2" + framed(b"abc")[6:] + bytes(2)))
    assert (await peer.answer(1)).messages == [b"abc"]


class TestStreamsThatEnd:
    """Only them: their neighbours go on."""

    @pytest.mark.parametrize(
        ("sent", "code"),
        [
            (window_update(1, 0), PROTOCOL_ERROR),
            (window_update(1, frames.LARGEST_WINDOW), FLOW_CONTROL_ERROR),
            (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
        ],
    )
    async def test_for_a_frame(self, served: tuple[str, Service], peer: Peer, sent: bytes, code: int) -> None:
        await peer.send(peer.call(1, HOLD), peer.call(3, HOLD))
        await served[1].until(begun=2)
        await peer.send(sent)
        assert (await peer.answer(1)).reset == code
        await served[1].until(cancelled=1)
        await peer.send(peer.call(5, ECHO, b"a"))
        assert (await peer.answer(5)).messages == [b"a"]

    @pytest.mark.parametrize(
        "more",
        [
            [("connection", "close")],
            [("X-Upper", "a")],
            [(":late", "a")],
            [("te", "gzip")],
            [("x-name", "a\r\nb: c")],
            [("x-name", "a\0")],
            [("x name", "a")],
            [("", "a")],
            [("x-name", "a"), (":path", ECHO)],
        ],
    )
    async def test_for_headers(self, peer: Peer, more: list[tuple[str, str]]) -> None:
        await peer.send(peer.call(1, ECHO, b"", *more))
        assert (await peer.answer(1)).reset == PROTOCOL_ERROR
        await peer.send(peer.call(3, ECHO, b"a"))
        assert (await peer.answer(3)).messages == [b"a"]

    @pytest.mark.parametrize("without", [":method", ":scheme", ":path"])
    async def test_for_headers_that_are_missing(self, peer: Peer, without: str) -> None:
        await peer.send(frames.headers(1, peer.block(ECHO, without=[without]), end=True))
        assert (await peer.answer(1)).reset == PROTOCOL_ERROR

    async def test_for_trailers_that_do_not_end_it(self, peer: Peer) -> None:
        await peer.send(peer.headers(1, JOIN), peer.headers(1, JOIN))
        assert (await peer.answer(1)).reset == PROTOCOL_ERROR

    async def test_that_have_ended(self, peer: Peer) -> None:
        await peer.send(peer.call(1, HOLD), data(1, b"x"))
        assert (await peer.answer(1)).reset == STREAM_CLOSED
        await peer.send(window_update(1, 1), rst_stream(1, 0), frame(PRIORITY, 0, 1, bytes(5)))
        assert await peer.pong() == []
        await peer.send(peer.headers(1, HOLD))
        assert await peer.goaway() == STREAM_CLOSED


async def test_trailers_of_a_request_end_it(peer: Peer) -> None:
    await peer.send(peer.headers(1, ECHO), data(1, framed(b"a")))
    await peer.send(frames.headers(1, b"\0\6x-name\1a", end=True))
    assert (await peer.answer(1)).messages == [b"a"]


async def test_a_method_that_is_no_grpc(peer: Peer) -> None:
    for number, changed, status in ((1, {"method": "GET"}, "405"), (3, {"method": "CONNECT"}, "405")):
        await peer.send(frames.headers(number, peer.block(ECHO, **changed), end=True))
        assert (await peer.answer(number)).trailers[":status"] == status
    for number, content in ((5, "text/html"), (7, "application/grpcish"), (9, "application/grpc-web+proto")):
        block = peer.block(ECHO, ("content-type", content), without=["content-type"])
        await peer.send(frames.headers(number, block, end=False))
        answer = await peer.answer(number)
        assert answer.trailers == {":status": "415"}
        assert (await peer.find(RST_STREAM, number)).code == frames.NO_ERROR
    for number, content in ((11, "application/grpc+proto"), (13, "application/grpc;a=b")):
        block = peer.block(ECHO, ("content-type", content), without=["content-type"])
        await peer.send(frames.headers(number, block, end=False), data(number, framed(b"a"), WHOLE))
        assert (await peer.answer(number)).messages == [b"a"]


async def test_a_client_that_wants_a_smaller_table_of_headers(peer: Peer) -> None:
    """It is told that there is none, which it may insist on (RFC 7541, 4.2)."""
    await peer.send(peer.call(1, ECHO))
    assert (await peer.answer(1)).status == (0, "")
    await peer.send(settings({frames.HEADER_TABLE_SIZE: 100}))
    peer.decoder.max_allowed_table_size = 100
    for number in (3, 5):
        await peer.send(peer.call(number, ECHO, b"a"))
        assert (await peer.answer(number)).status == (0, "")


async def test_more_calls_than_may_be_open() -> None:
    async with serving(max_streams=2) as (address, service, _), connected(address, {}) as peer:
        await peer.send(peer.call(1, HOLD), peer.call(3, HOLD), peer.call(5, HOLD))
        assert (await peer.answer(5)).reset == frames.REFUSED_STREAM
        await peer.send(rst_stream(1, frames.CANCEL))
        await service.until(begun=2, cancelled=1)
        await peer.send(peer.call(7, ECHO, b"a"))
        assert (await peer.answer(7)).messages == [b"a"]


async def test_rapid_resets(peer: Peer) -> None:
    block = frames.headers(1, peer.block(HOLD), end=False)[frames.HEAD_BYTES :]
    await peer.send(*(frame(HEADERS, END_HEADERS, i, block) + rst_stream(i, 8) for i in range(1, 2 * MANY, 2)))
    assert await peer.goaway() == ENHANCE_YOUR_CALM


async def test_empty_data_without_end(peer: Peer) -> None:
    await peer.send(peer.headers(1, ECHO), data(1, b"") * MANY)
    assert await peer.goaway() == ENHANCE_YOUR_CALM


async def test_data_without_end_for_a_stream_that_has_ended(peer: Peer) -> None:
    await peer.send(peer.call(1, ECHO), data(1, b"x") * MANY)
    assert await peer.goaway() == ENHANCE_YOUR_CALM


async def test_calls_without_end_beyond_what_may_be_open() -> None:
    async with serving(max_streams=1) as (address, _, _), connected(address, {}) as peer:
        await peer.send(peer.call(1, HOLD), *(peer.headers(2 * i + 3, HOLD, end=True) for i in range(MANY)))
        assert await peer.goaway() == ENHANCE_YOUR_CALM


async def test_windows_of_many_streams_that_change_without_end(peer: Peer) -> None:
    """Each such change costs a step for each stream."""
    await peer.send(*(peer.headers(2 * i + 1, HOLD) for i in range(160)))
    await peer.send(*(settings({frames.INITIAL_WINDOW_SIZE: 100 + i}) for i in range(MANY // 10)))
    assert await peer.goaway() == ENHANCE_YOUR_CALM


async def test_metadata(served: tuple[str, Service], peer: Peer) -> None:
    sent = (("x-text", "a b"), ("x-many", "1"), ("x-many", "2"), ("x-it-bin", "AAH/"), ("y-bin", "AA"))
    await peer.send(peer.call(1, TELL, b"", *sent))
    answer = await peer.answer(1)
    assert answer.fields["x-begun"] == "yes"
    assert answer.fields["x-begun-bin"] == "AAE="
    wanted = (("x-text", "a b"), ("x-many", "1"), ("x-many", "2"), ("x-it-bin", b"\0\1\xff"), ("y-bin", b"\0"))
    assert served[1].metadata == wanted
    await peer.send(peer.call(3, TELL, b"", ("x-bin", "A")))
    assert (await peer.answer(3)).status == (13, "x-bin is not base64.")


async def test_names_without_end_are_not_kept(served: tuple[str, Service], peer: Peer) -> None:
    """Those that a client sends are known by heart, up to a bound."""
    for i in range(3):
        names = [(f"x-{i}-{j}", "v") for j in range(900)]
        await peer.send(peer.call(2 * i + 1, TELL, b"", *names))
        await peer.answer(2 * i + 1)
        assert len(served[1].metadata) == 900

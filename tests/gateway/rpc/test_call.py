"""One call, against a server that says what the test says."""

from __future__ import annotations

import asyncio
import base64
import random

import pytest
from support.channels import failure, said, soon
from support.http2_server import (
    DATA,
    END_STREAM,
    HEADERS,
    OK_HEAD,
    RST_STREAM,
    WINDOW_UPDATE,
    Fields,
    frame,
    message,
    rst_stream,
)
from support.scripted import begun, pair, raised

from gateway.rpc.connection import RECEIVE_WINDOW
from trestle.errors import CallError

CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE = 1, 2, 4, 8, 13, 14
CANCEL = 8


async def test_what_a_request_looks_like() -> None:
    async with pair() as (plain, peer):
        call = plain.call(b"hello", 60, (("x-request-id", "r 1"), ("x-own-bin", b"\0\xff,")))
        reading = asyncio.create_task(call.read())
        asked = await peer.request()
        assert await peer.body(asked.stream) == message(said(b"hello"))
        timeout = asked.fields.pop("grpc-timeout")
        assert timeout.endswith("m")
        assert 0 < int(timeout[:-1]) <= 60_000
        assert asked.fields.pop("user-agent").startswith("trestle-gateway/")
        assert base64.b64decode(asked.fields.pop("x-own-bin")) == b"\0\xff,"
        assert asked.fields == {
            ":method": "POST",
            ":scheme": "http",
            ":path": "/test.Service/Do",
            ":authority": plain.channel.name.authority,
            "te": "trailers",
            "content-type": "application/grpc",
            "x-request-id": "r 1",
        }
        call.cancel()
        assert await raised(reading) == (CANCELLED, "The gateway has no more use for it.")
        assert (await peer.frame(RST_STREAM)).number == CANCEL


@pytest.mark.parametrize("seed", range(6))
async def test_responses_however_they_are_cut(seed: int) -> None:
    """Into frames and into pieces; larger than the window, too, and empty."""
    rng = random.Random(seed)
    sizes = [rng.choice((0, 1, 5, 300, 20_000, 70_000, 300_000)) for _ in range(8)]
    told = [rng.randbytes(size) for size in sizes]
    async with pair(cut=rng) as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream, (*OK_HEAD, ("x-own-bin", "AP8"), ("x-own", "ä"))))

        async def tell() -> None:
            await peer.data(asked.stream, b"".join(message(said(each)) for each in told), rng)
            await peer.send(peer.status(asked.stream))

        telling = asyncio.create_task(tell())
        heard = [(await soon(reading)).value]  # type: ignore[attr-defined]
        assert dict(await call.initial_metadata())["x-own-bin"] == b"\0\xff"
        while (response := await soon(call.read())) is not None:
            heard.append(response.value)
        await telling
        assert heard == told
        assert call.done


async def test_a_response_of_many_windows_costs_no_more_than_its_size() -> None:
    """Its pieces are not put together anew with each that comes: that would take minutes."""
    size = 30 * 1024 * 1024
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream))
        await soon(peer.data(asked.stream, message(said(bytes(size)))))
        await peer.send(peer.status(asked.stream))
        assert len((await soon(reading)).value) == size  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [10, 1_000, 60_000, 200_000])
async def test_who_does_not_read_holds_a_window(size: int) -> None:
    """Of messages small and large, also of one that is not whole yet."""
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, message(said(b"first"))))
        assert (await soon(reading)).value == b"first"  # type: ignore[attr-defined]
        response = message(said(bytes(size)))
        pieces = response * (2 * RECEIVE_WINDOW // len(response) + 2)
        room = RECEIVE_WINDOW - len(message(said(b"first")))
        for at in range(0, room, 16_000):
            await peer.send(frame(DATA, 0, asked.stream, pieces[at : min(at + 16_000, room)]))
        told = await peer.settle()
        assert not any(came.kind == WINDOW_UPDATE and came.stream for came in told)
        # Whoever comes back gets it all.
        peer.window[asked.stream] = 0
        telling = asyncio.create_task(peer.data(asked.stream, pieces[room:]))
        for _ in range(len(pieces) // len(response)):
            assert len((await soon(call.read())).value) == size
        await telling
        await peer.send(peer.status(asked.stream))
        assert await soon(call.read()) is None


async def test_a_call_cancelled_before_it_began_is_never_made() -> None:
    async with pair() as (plain, peer):
        call = plain.call()
        call.cancel()
        assert (await failure(call))[0] == CANCELLED
        assert not any(came.kind == HEADERS for came in await peer.settle())


async def test_a_call_that_has_ended_cannot_be_cancelled() -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        assert await soon(reading) is None
        call.cancel()
        assert await soon(call.read()) is None
        assert not any(came.kind == RST_STREAM for came in await peer.settle())


async def test_what_came_before_a_cancel_is_still_read() -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        response = message(said(bytes(20_000)))
        await peer.send(peer.headers(asked.stream))
        for piece in (response[:16_000], response[16_000:]) * 2:
            await peer.send(frame(DATA, 0, asked.stream, piece))
        await peer.settle()
        call.cancel()
        assert len((await soon(reading)).value) == 20_000  # type: ignore[attr-defined]
        assert len((await soon(call.read())).value) == 20_000
        assert (await failure(call))[0] == CANCELLED
        await peer.settle()
        kinds = [each.kind for each in peer.came if each.stream == asked.stream]
        assert kinds[-1] == RST_STREAM, "nothing is said of a stream that is closed"


async def test_its_deadline_ends_it_and_tells_the_worker() -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer, timeout=0.05)
        await peer.send(peer.headers(asked.stream))
        assert await raised(reading) == (DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert (await peer.frame(RST_STREAM)).number == CANCEL
        assert await failure(plain.call(timeout=0.0)) == (DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert not any(came.kind == HEADERS for came in await peer.settle())


@pytest.mark.parametrize(
    ("code", "status"), [(0, INTERNAL), (2, INTERNAL), (8, CANCELLED), (11, RESOURCE_EXHAUSTED), (99, INTERNAL)]
)
@pytest.mark.parametrize("late", [False, True])
async def test_a_stream_that_the_worker_resets(code: int, status: int, late: bool) -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        if late:
            await peer.send(peer.headers(asked.stream), frame(DATA, 0, asked.stream, message(said(b"x"))))
        await peer.send(rst_stream(asked.stream, code))
        if late:
            assert (await soon(reading)).value == b"x"  # type: ignore[attr-defined]
            assert await failure(call) == (status, f"The worker ended the call (HTTP/2 error {code}).")
        else:
            assert await raised(reading) == (status, f"The worker ended the call (HTTP/2 error {code}).")


HTTP = "The worker's address answered with the HTTP status"
NO_STATUS = "The worker ended the call without a status."


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ((("grpc-status", "5"), ("grpc-message", "no %E2%82%AC, 100%25 sure%")), 5, "no €, 100% sure%"),
        ((("grpc-status", "17"),), UNKNOWN, ""),
        ((("grpc-status", "9" * 5000),), UNKNOWN, ""),
        ((("grpc-status", "-1"),), INTERNAL, NO_STATUS),
        ((("grpc-status", ""),), INTERNAL, NO_STATUS),
        ((), INTERNAL, NO_STATUS),
        ((("grpc-status", "0"), ("x-bin", "A")), INTERNAL, "x-bin is not base64."),
    ],
)
@pytest.mark.parametrize("only", [False, True])
async def test_how_it_ends(fields: Fields, status: int, words: str, only: bool) -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        if only:
            await peer.send(peer.headers(asked.stream, (*OK_HEAD, *fields), end=True))
        else:
            await peer.send(peer.headers(asked.stream), peer.headers(asked.stream, fields, end=True))
        assert await raised(reading) == (status, words)


@pytest.mark.parametrize(
    ("http", "status"),
    [("400", 13), ("401", 16), ("403", 7), ("404", 12), ("429", 14), ("500", 2), ("502", 14), ("503", 14), ("302", 2)],
)
@pytest.mark.parametrize("end", [False, True])
async def test_an_answer_that_is_not_grpc(http: str, status: int, end: bool) -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream, ((":status", http), ("content-type", "text/html")), end=end))
        if not end:
            await peer.send(frame(DATA, END_STREAM, asked.stream, b"<html>"))
        assert await raised(reading) == (status, f"{HTTP} {http}.")
        await peer.settle()  # the connection goes on


async def test_a_status_of_grpc_counts_more_than_that_of_http() -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        fields = ((":status", "503"), ("grpc-status", "8"), ("grpc-message", "full"))
        await peer.send(peer.headers(asked.stream, fields, end=True))
        assert await raised(reading) == (RESOURCE_EXHAUSTED, "full")


async def test_a_web_page_is_no_answer() -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream, ((":status", "200"), ("content-type", "text/html"))))
        assert await raised(reading) == (UNKNOWN, "What answers at the worker's address is not gRPC.")
        assert (await peer.frame(RST_STREAM)).number == CANCEL


async def test_headers_for_information_come_before_the_answer() -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        for code in ("100", "103"):
            await peer.send(peer.headers(asked.stream, ((":status", code),)))
        await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        assert await soon(reading) is None


@pytest.mark.parametrize(
    ("data", "end", "status", "words"),
    [
        (message(b"", compressed=1), 0, INTERNAL, "A response is compressed, which nobody asked for."),
        (b"\0\0\1\0\1", 0, RESOURCE_EXHAUSTED, "A response has 65537 bytes (gateway.max_message_bytes is 65536)."),
        (b"\0\0\0\0\5hal", END_STREAM, INTERNAL, NO_STATUS),
        (b"\0\0", END_STREAM, INTERNAL, NO_STATUS),
        (b"", END_STREAM, INTERNAL, NO_STATUS),
        (message(b"\x0a\xff"), 0, INTERNAL, "A response cannot be read."),
    ],
)
async def test_data_that_is_no_response(data: bytes, end: int, status: int, words: str) -> None:
    async with pair(most=65_536) as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), frame(DATA, end, asked.stream, data))
        assert await raised(reading) == (status, words)
        await peer.settle()


async def test_a_response_that_is_not_whole_is_none_whatever_the_status() -> None:
    async with pair() as (plain, peer):
        _, reading, asked = await begun(plain, peer)
        half = frame(DATA, 0, asked.stream, message(b"whole")[:-1])
        await peer.send(peer.headers(asked.stream), half, peer.status(asked.stream))
        assert await raised(reading) == (INTERNAL, NO_STATUS)


async def test_headers_where_none_may_be() -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), peer.headers(asked.stream))
        assert await raised(reading) == (INTERNAL, "Headers came in the middle of an answer.")
        call, reading, asked = await begun(plain, peer)
        early = frame(DATA, 0, asked.stream, message(said(b"early")))
        await peer.send(early, peer.headers(asked.stream, (*OK_HEAD, ("grpc-status", "0")), end=True))
        assert (await soon(reading)).value == b"early"  # type: ignore[attr-defined]
        assert await failure(call) == (INTERNAL, "A response came before its headers.")


@pytest.mark.parametrize(
    ("responses", "words"),
    [((), "The worker gave no response."), ((b"1", b"2", b"3"), "The worker gave more than one response.")],
)
async def test_a_method_of_one_response(responses: tuple[bytes, ...], words: str) -> None:
    async with pair() as (plain, peer):
        call = plain.call()
        reading = asyncio.create_task(call.single())
        asked = await peer.request()
        await peer.send(peer.headers(asked.stream))
        for each in responses:
            await peer.send(frame(DATA, 0, asked.stream, message(said(each))))
        await peer.send(peer.status(asked.stream))
        assert await raised(reading) == (INTERNAL, words)


async def test_nothing_is_read_after_what_cannot_be() -> None:
    async with pair() as (plain, peer):
        call, reading, asked = await begun(plain, peer)
        both = (message(b"\x0a\xff"), message(said(b"after it")))
        await peer.send(peer.headers(asked.stream), *(frame(DATA, 0, asked.stream, each) for each in both))
        assert await raised(reading) == (INTERNAL, "A response cannot be read.")
        with pytest.raises(CallError):
            await soon(call.read())


async def test_who_reads_may_be_cancelled_and_others_go_on() -> None:
    async with pair() as (plain, peer):
        call, reading, _ = await begun(plain, peer)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        call.cancel()
        assert (await peer.frame(RST_STREAM)).number == CANCEL
        other, reading, asked = await begun(plain, peer)
        await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        assert await soon(reading) is None
        assert other.done

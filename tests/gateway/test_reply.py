"""Answers as bytes on a connection: what is in their heads, where their bodies end, and what becomes of it then."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from support.upstream import PATIENCE

from gateway.listener import Bounds, Listener
from gateway.reply import Reply, StreamReply

Answer = Callable[[web.BaseRequest], Awaitable[Reply]]
HEADERS = {"server": "trestle", "x-request-id": "req_1"}
DATE = re.compile(rb"date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")
COMMON = b"server: trestle\r\nx-request-id: req_1\r\n"


@asynccontextmanager
async def served(answer: Answer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to who answers so."""
    listener = Listener(answer, Bounds(8192, 10, 10.0, 10.0, 1.0))
    host, _, port = (await listener.listen("listen", "127.0.0.1:0")).rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        await listener.close()


async def whole(http: web.BaseRequest) -> Reply:
    return Reply(http, HEADERS, b"body")


async def streamed(http: web.BaseRequest) -> Reply:
    reply = StreamReply(http, HEADERS)
    reply.write(b"one")
    reply.write(b"two, three")
    reply.end(b"")
    return reply


async def streamed_at_once(http: web.BaseRequest) -> Reply:
    reply = StreamReply(http, HEADERS)
    reply.end(b"all")
    return reply


async def streamed_nothing(http: web.BaseRequest) -> Reply:
    reply = StreamReply(http, HEADERS)
    reply.end(b"")
    return reply


async def without_content(http: web.BaseRequest) -> Reply:
    return Reply(http, HEADERS, status=204)


async def last(http: web.BaseRequest) -> Reply:
    reply = Reply(http, HEADERS, b"body", status=503)
    reply.force_close()
    return reply


async def closing(http: web.BaseRequest) -> Reply:
    return Reply(http, {**HEADERS, "connection": "close"}, b"body", status=299)


FIRST = b"HTTP/1.1 200 OK\r\n" + COMMON
LENGTH = b"content-length: 4\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"
CLOSE = b"connection: close\r\n"
KEEP = b"connection: keep-alive\r\n"


@pytest.mark.parametrize(
    ("answer", "request_line", "asked", "expected", "stays"),
    [
        pytest.param(whole, "GET / HTTP/1.1", "", FIRST + LENGTH + b"\r\nbody", True, id="whole"),
        pytest.param(whole, "HEAD / HTTP/1.1", "", FIRST + LENGTH + b"\r\n", True, id="head"),
        pytest.param(
            whole, "GET / HTTP/1.1", "connection: close\r\n", FIRST + LENGTH + CLOSE + b"\r\nbody", False, id="asked"
        ),
        pytest.param(
            whole, "GET / HTTP/1.0", "", FIRST.replace(b"1.1", b"1.0") + LENGTH + b"\r\nbody", False, id="1.0"
        ),
        pytest.param(
            whole,
            "GET / HTTP/1.0",
            "connection: keep-alive\r\n",
            FIRST.replace(b"1.1", b"1.0") + LENGTH + KEEP + b"\r\nbody",
            True,
            id="1.0-kept",
        ),
        pytest.param(
            without_content, "GET / HTTP/1.1", "", b"HTTP/1.1 204 No Content\r\n" + COMMON + b"\r\n", True, id="204"
        ),
        pytest.param(
            last,
            "GET / HTTP/1.1",
            "",
            b"HTTP/1.1 503 Service Unavailable\r\n" + COMMON + LENGTH + CLOSE + b"\r\nbody",
            False,
            id="forced",
        ),
        pytest.param(
            closing,
            "GET / HTTP/1.1",
            "connection: close\r\n",
            b"HTTP/1.1 299 \r\n" + COMMON + CLOSE + LENGTH + b"\r\nbody",
            False,
            id="said-once",
        ),
        pytest.param(
            streamed,
            "GET / HTTP/1.1",
            "",
            FIRST + CHUNKED + b"\r\n3\r\none\r\na\r\ntwo, three\r\n0\r\n\r\n",
            True,
            id="stream",
        ),
        pytest.param(
            streamed_at_once, "GET / HTTP/1.1", "", FIRST + CHUNKED + b"\r\n3\r\nall\r\n0\r\n\r\n", True, id="at-once"
        ),
        pytest.param(
            streamed_nothing, "GET / HTTP/1.1", "", FIRST + CHUNKED + b"\r\n0\r\n\r\n", True, id="stream-of-nothing"
        ),
        pytest.param(
            streamed_nothing, "HEAD / HTTP/1.1", "", FIRST + CHUNKED + b"\r\n", True, id="head-of-a-stream"
        ),
        pytest.param(
            whole, "GET / HTTP/2.0", "", FIRST + LENGTH + CLOSE + b"\r\nbody", False, id="2.0"
        ),
        pytest.param(
            streamed,
            "GET / HTTP/1.0",
            "connection: keep-alive\r\n",
            FIRST.replace(b"1.1", b"1.0") + b"\r\nonetwo, three",
            False,
            id="stream-1.0",
        ),
        pytest.param(
            streamed_at_once,
            "GET / HTTP/1.0",
            "",
            FIRST.replace(b"1.1", b"1.0") + b"\r\nall",
            False,
            id="at-once-1.0",
        ),
    ],
)
async def test_bytes(answer: Answer, request_line: str, asked: str, expected: bytes, stays: bool) -> None:
    async with served(answer) as (reader, writer), asyncio.timeout(PATIENCE):
        request = f"{request_line}\r\nhost: x\r\n{asked}\r\n".encode()
        for _ in range(2 if stays else 1):
            writer.write(request)
            seen = b""
            while len(DATE.sub(b"", seen)) < len(expected) or not DATE.search(seen):
                seen += await reader.read(1 << 16) or pytest.fail(f"the connection ended: {seen!r}")
            assert DATE.sub(b"", seen, count=1) == expected
        if not stays:
            assert await reader.read() == b""


async def test_a_large_body_is_sent_as_far_as_the_client_reads() -> None:
    body = bytes(range(256)) * (64 << 10)
    sent = asyncio.Event()

    async def large(http: web.BaseRequest) -> Reply:
        reply = Reply(http, HEADERS, body)
        await reply.prepare(http)
        sent.set()
        return reply

    async with served(large) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert not sent.is_set()
        assert await reader.readexactly(len(body)) == body
        await sent.wait()


async def test_a_header_cannot_end_its_line() -> None:
    async def split(http: web.BaseRequest) -> Reply:
        with pytest.raises(ValueError, match="end of a line"):
            StreamReply(http, {"x-a": "1\r\nx-b: 2"})
        with pytest.raises(ValueError, match="end of a line"):
            await Reply(http, {"x-a\n": "1"}, b"body").prepare(http)
        return await whole(http)

    async with served(split) as (reader, writer), asyncio.timeout(PATIENCE):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(FIRST)

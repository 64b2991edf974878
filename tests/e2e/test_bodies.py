"""Bodies as they come over the wire: compressed, in forms that nobody reads, and broken on the way."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.chain import Chain
from support.client import Answer, Client, ask
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, completion

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = json.dumps(ask()).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n"


class Wire:
    """One connection to the gateway, written to and read byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        """Writes so much."""
        self._writer.write(data)

    async def heard(self) -> None:
        """Returns once the gateway asks for a body whose head said that it waits for that."""
        async with asyncio.timeout(PATIENCE):
            assert await self._reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(PATIENCE):
            line, *fields = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = dict(field.split(": ", 1) for field in fields)
            body = await self._reader.readexactly(int(headers["content-length"]))
        return Answer(int(line.split(" ")[1]), headers, body)

    async def ended(self) -> None:
        """Returns once the gateway has closed it, without another word."""
        async with asyncio.timeout(PATIENCE):
            assert await self._reader.read() == b""


@asynccontextmanager
async def wire(chain: Chain) -> AsyncIterator[Wire]:
    reader, writer = await asyncio.open_connection(*chain.gateway.address.split(":"))
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


def assert_unreadable(answer: Answer) -> None:
    """A body that broke is the caller's own fault."""
    error = answer.error()
    assert (answer.status, error["type"], error["code"]) == (400, "invalid_request_error", "bad_request")


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(REQUEST)),
        ("GZip", gzip.compress(REQUEST[:9]) + gzip.compress(REQUEST[9:])),
        ("deflate", zlib.compress(REQUEST)),
        ("identity", REQUEST),
        ("", REQUEST),
    ],
    ids=["gzip", "two members", "deflate", "identity", "none"],  # bytes of gzip tell the time, and no name may
)
async def test_a_compressed_one(coding: str, body: bytes, client: Client, first: ScriptedUpstream) -> None:
    first.will(Reply.json(completion()))
    answer = await client.ask("POST", "/v1/chat/completions", body, content_encoding=coding)
    assert answer.status == 200
    assert first.requests[0].json == {**ask(), "model": "scripted-model"}


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "x-gzip", "gzip, gzip", "aes128gcm", "nonsense"])
async def test_a_coding_that_nobody_reads(coding: str, chain: Chain) -> None:
    async with wire(chain) as connection:
        connection.send(HEAD + b"content-encoding: %b\r\ncontent-length: 5\r\n\r\nxxxxx" % coding.encode())
        answer = await connection.answer()
    error = answer.error()
    assert (answer.status, error["type"]) == (415, "invalid_request_error")
    assert error["code"] == "unsupported_content_encoding"
    assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "body",
    [b"no such thing", gzip.compress(REQUEST) + b"and more", gzip.compress(REQUEST)[:-1], b""],
    ids=["nothing of it", "more than it", "less than it", "nothing"],
)
async def test_one_that_is_not_what_its_coding_says(body: bytes, client: Client, chain: Chain) -> None:
    chain.gateway.new_log()
    assert_unreadable(await client.ask("POST", "/v1/chat/completions", body, content_encoding="gzip"))
    assert "Traceback" not in chain.gateway.new_log()


async def test_what_becomes_larger_than_allowed(guarded: Client, first: ScriptedUpstream) -> None:
    large = gzip.compress(json.dumps(ask(user="x" * 64 * 1024)).encode())
    answer = await guarded.ask("POST", "/v1/chat/completions", large, content_encoding="gzip")
    assert (answer.status, answer.error()["code"]) == (413, "request_too_large")
    first.will(Reply.json(completion()))
    fitting = gzip.compress(json.dumps(ask(user="x" * 60 * 1024)).encode())
    assert (await guarded.ask("POST", "/v1/chat/completions", fitting, content_encoding="gzip")).status == 200


async def test_nothing_is_unpacked_for_who_is_refused(chain: Chain) -> None:
    """What cannot be unpacked ends no connection where nobody tries."""
    async with wire(chain) as connection:
        for _ in range(2):
            connection.send(b"POST /v1/nowhere HTTP/1.1\r\nhost: x\r\ncontent-encoding: gzip\r\n")
            connection.send(b"content-length: 4\r\n\r\nnone")
            assert (await connection.answer()).status == 404


async def test_chunks_that_break_while_they_are_read(chain: Chain) -> None:
    chain.gateway.new_log()
    async with wire(chain) as connection:
        connection.send(HEAD + CHUNKED + b"expect: 100-continue\r\n\r\n")
        await connection.heard()
        connection.send(b"5\r\n{\"mod\r\nno size\r\n")
        answer = await connection.answer()
        assert_unreadable(answer)
        assert answer.headers["connection"] == "close"
        await connection.ended()
    assert "Traceback" not in chain.gateway.new_log()


async def test_chunks_that_break_behind_another_request(chain: Chain, first: ScriptedUpstream) -> None:
    gate = Gate()
    whole = json.dumps(completion()).encode()
    first.will(Reply([gate, whole], headers={"content-type": "application/json"}))
    async with wire(chain) as connection:
        connection.send(HEAD + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
        await first.request()
        connection.send(HEAD + CHUNKED + b"\r\n5\r\n{\"mod\r\n")
        connection.send(b"no size\r\n")
        gate.set()
        assert (await connection.answer()).status == 200
        assert_unreadable(await connection.answer())
        await connection.ended()


async def test_what_is_no_request_behind_one_that_is(chain: Chain, first: ScriptedUpstream) -> None:
    """The one before it is answered."""
    gate = Gate()
    whole = json.dumps(completion()).encode()
    first.will(Reply([gate, whole], headers={"content-type": "application/json"}))
    async with wire(chain) as connection:
        connection.send(HEAD + b"content-length: %d\r\n\r\n" % len(REQUEST) + REQUEST)
        await first.request()
        connection.send(b"nonsense\r\n\r\n")
        gate.set()
        assert (await connection.answer()).status == 200
        assert_unreadable(await connection.answer())
        await connection.ended()

"""The HTTP client of one upstream, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
import zlib
from pathlib import Path

import pytest
from support.upstream import PATIENCE, Cut, Framing, Gate, Reply, ScriptedUpstream
from support.upstream_client import body_of, calling, post

from trestle.errors import CallError, Reason
from worker.family import HttpRequest, Upstream, UpstreamSettings
from worker.http1 import HIGH_WATER
from worker.upstream import UpstreamAnswer, UpstreamClient


async def has_ended(answer: UpstreamAnswer) -> None:
    """All of it is there, and the loop has had no other turn since."""
    end = time.monotonic() + PATIENCE
    while not answer.ended:
        assert time.monotonic() < end
        await asyncio.sleep(0)


async def test_what_arrived_is_read_before_the_break() -> None:
    """However late it is read: a connection that is lost takes nothing with it that had arrived."""
    async with ScriptedUpstream() as scripted:
        scripted.will(Reply.sse(b"data: last words\n\n", Cut.CLOSE))
        client = UpstreamClient(Upstream("scripted", UpstreamSettings(base_url=scripted.url)))
        try:
            answer = await client.open(HttpRequest(scripted.url + "/chat/completions", {}, b"{}"), {})
            async with asyncio.timeout(PATIENCE):
                await (await scripted.request()).lost.wait()
            for _ in range(100):  # the loop's own turns in which it learns of the loss
                await asyncio.sleep(0)
            assert await answer.read() == b"data: last words\n\n"
            with pytest.raises(CallError) as raised:
                await answer.read()
            assert raised.value.reason is Reason.UPSTREAM_TRUNCATED
            answer.close()
        finally:
            await client.close()


@pytest.mark.parametrize("framing", [Framing.LENGTH, Framing.CHUNKED])
async def test_a_connection_serves_again(framing: Framing) -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(*(Reply([b"first ", b"second"], framing=framing) for _ in range(3)))
        for _ in range(3):
            assert await body_of(await client.open(post(scripted.url), {})) == b"first second"
        assert scripted.accepted == 1


@pytest.mark.parametrize("size", [0, 64 * 1024, 64 * 1024 + 1, 1_000_000])
async def test_a_request_of_any_size(size: int) -> None:
    body = bytes(i % 251 for i in range(size))
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(*(Reply.json({}) for _ in range(2)))
        for _ in range(2):
            request = HttpRequest(scripted.url + "/chat/completions", {"x-one": "a"}, body)
            assert await body_of(await client.open(request, {})) == b"{}"
            arrived = await scripted.request()
            assert (arrived.body, arrived.headers["x-one"]) == (body, "a")
            assert arrived.headers["content-length"] == str(size)
        assert scripted.accepted == 1


async def test_an_upstream_that_says_goodbye_is_not_asked_there_again() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        farewell = {"connection": "close"}
        scripted.will(*(Reply([b"one"], headers=farewell, framing=framing) for framing in (Framing.LENGTH,) * 2))
        for _ in range(2):
            assert await body_of(await client.open(post(scripted.url), {})) == b"one"
        assert scripted.accepted == 2


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfalse", b"what?"])
async def test_a_second_answer_to_one_request_is_nobodys(more: bytes) -> None:
    """It is not taken for the answer to the next request."""
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue"
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([wire + more], framing=Framing.BARE), Reply([b"next"], framing=Framing.LENGTH))
        assert await body_of(await client.open(post(scripted.url), {})) == b"true"
        assert await body_of(await client.open(post(scripted.url), {})) == b"next"
        assert scripted.accepted == 2


async def test_a_connection_that_broke_after_its_answer_is_given_to_nobody() -> None:
    """Not even in the moment before the loop tells that it is lost."""
    gate = Gate()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"
        broken = Reply([head, gate, b"true what?"], framing=Framing.BARE)
        scripted.will(broken, Reply([b"next"], framing=Framing.LENGTH))
        answer = await client.open(post(scripted.url), {})
        gate.set()
        await has_ended(answer)
        assert await body_of(answer) == b"true"
        assert await body_of(await client.open(post(scripted.url), {})) == b"next"


async def test_an_answer_that_came_whole_leaves_a_connection_that_serves_again() -> None:
    """Also where it is much, and nobody has read it."""
    gate = Gate()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([bytes(HIGH_WATER), gate, b"\0"], framing=Framing.LENGTH))
        scripted.will(Reply([b"next"], framing=Framing.LENGTH))
        answer = await client.open(post(scripted.url), {})
        gate.set()
        await has_ended(answer)
        answer.close()
        assert await body_of(await client.open(post(scripted.url), {})) == b"next"
        assert scripted.accepted == 1


async def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    wire = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ntrue"
    gate = Gate()
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        forged = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"
        scripted.will(Reply([wire, gate, forged, Gate()], framing=Framing.BARE))
        assert await body_of(await client.open(post(scripted.url), {})) == b"true"
        gate.set()
        await (await scripted.request()).closed()
        scripted.will(Reply([b"next"], framing=Framing.LENGTH))
        assert await body_of(await client.open(post(scripted.url), {})) == b"next"


async def test_headers_of_an_answer_by_their_names() -> None:
    wire = b"HTTP/1.1 200 OK\r\nX-One: a\r\nx-one: b\r\nX-Odd: \xc3\xa9\xff\r\nContent-Length: 0\r\n\r\n"
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([wire], framing=Framing.BARE))
        answer = await client.open(post(scripted.url), {})
        assert (answer.headers["x-one"], answer.headers["x-odd"]) == ("a, b", "é\udcff")
        assert answer.clean_end
        assert await body_of(answer) == b""


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate"])
async def test_a_small_body_that_would_become_a_huge_one(coding: str) -> None:
    zeros = bytes(64 * 1024 * 1024)
    packed = zlib.compress(zeros) if coding == "deflate" else gzip.compress(zeros)
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([packed], headers={"content-encoding": coding}))
        answer = await client.open(post(scripted.url), {})
        with pytest.raises(CallError) as raised:
            await answer.read_all(2 * len(zeros))
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL
        answer.close()


async def test_a_small_body_that_would_become_a_huge_one_bit_by_bit() -> None:
    """Each of the pieces that one read holds is small enough."""
    packer = zlib.compressobj()
    pieces = [packer.compress(bytes(8 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(10)]
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate\r\ntransfer-encoding: chunked\r\n\r\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, packer.flush()))
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([head + chunks + b"0\r\n\r\n"], framing=Framing.BARE))
        with pytest.raises(CallError) as raised:
            await (await client.open(post(scripted.url), {})).read_all(1 << 30)
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


async def test_a_body_that_is_not_packed_as_it_says() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([b"plain", Gate()], headers={"content-encoding": "gzip"}))
        with pytest.raises(CallError) as raised:
            await (await client.open(post(scripted.url), {})).read()
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


async def test_who_is_slow_makes_the_upstream_wait() -> None:
    """What nobody reads stays at the upstream, and nothing of it is lost."""
    piece = bytes(range(256)) * 256
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([piece] * 800, framing=Framing.LENGTH), Reply([b"next"], framing=Framing.LENGTH))
        answer = await client.open(post(scripted.url), {})
        request = await scripted.request()
        before = -1
        while request.taken != before:  # until neither the kernel nor we take any more
            before = request.taken
            for _ in range(200):
                await asyncio.sleep(0.001)
        assert request.taken < 400 * len(piece)
        received = bytearray()
        while data := await answer.read():
            received += data
        assert bytes(received) == piece * 800
        answer.close()
        assert await body_of(await client.open(post(scripted.url), {})) == b"next"
        assert scripted.accepted == 1


async def test_a_connection_given_back_twice_serves_one_at_a_time() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(*(Reply([text], framing=Framing.LENGTH) for text in (b"one", b"two", b"three")))
        answer = await client.open(post(scripted.url), {})
        assert await answer.read_all(10) == b"one"
        for _ in range(2):
            answer.close()
        answers = [await client.open(post(scripted.url), {}) for _ in range(2)]
        assert [await body_of(each) for each in answers] == [b"two", b"three"]
        assert scripted.accepted == 2


async def test_a_body_that_the_close_ends() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([b"all of it"], framing=Framing.CLOSE), Reply([b"again"], framing=Framing.LENGTH))
        answer = await client.open(post(scripted.url), {})
        assert not answer.clean_end
        assert await body_of(answer) == b"all of it"
        assert await body_of(await client.open(post(scripted.url), {})) == b"again"
        assert scripted.accepted == 2


async def test_an_answer_left_unread_closes_its_connection() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply.sse(b"data: 1\n\n", Gate()))
        answer = await client.open(post(scripted.url), {})
        assert await answer.read() == b"data: 1\n\n"
        answer.close()
        await (await scripted.request()).closed()


async def test_interim_answers_are_passed_over() -> None:
    wire = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([wire], framing=Framing.BARE))
        answer = await client.open(post(scripted.url), {})
        assert (answer.status, "link" in answer.headers) == (200, False)
        assert await body_of(answer) == b"ok"


async def test_gzip_that_nobody_asked_for() -> None:
    packed = gzip.compress(b"unpacked")
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([packed[:5], packed[5:]], headers={"content-encoding": "gzip"}))
        assert await body_of(await client.open(post(scripted.url), {})) == b"unpacked"


@pytest.mark.parametrize(
    "wire",
    [b"no\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * (300 * 1024)],
    ids=["not HTTP", "an endless head"],
)
async def test_what_is_no_answer(wire: bytes) -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply([wire, Gate()], framing=Framing.BARE))
        with pytest.raises(CallError) as raised:
            await client.open(post(scripted.url), {})
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


async def test_headers_of_one_name_the_last_counts() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        scripted.will(Reply.json({}))
        await body_of(await client.open(post(scripted.url, **{"X-One": "a"}), {"x-one": "b"}))
        assert (await scripted.request()).headers["x-one"] == "b"


async def test_a_header_cannot_be_two() -> None:
    async with ScriptedUpstream() as scripted, calling(scripted.url) as client:
        with pytest.raises(CallError) as raised:
            await client.open(post(scripted.url, name="a\r\nother: b"), {})
        assert raised.value.reason is Reason.INVALID_REQUEST


async def test_silence_before_the_head_and_between_reads() -> None:
    times = {"first_byte_timeout": 1.0, "idle_timeout": 1.0}
    async with ScriptedUpstream() as scripted, calling(scripted.url, **times) as client:
        scripted.will(Reply([Gate()], framing=Framing.BARE), Reply.sse(b"data: 1\n\n", Gate()))
        with pytest.raises(CallError) as raised:
            await client.open(post(scripted.url), {})
        assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
        answer = await client.open(post(scripted.url), {})
        assert await answer.read() == b"data: 1\n\n"
        with pytest.raises(CallError) as raised:
            await answer.read()
        assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
        answer.close()


async def test_silence_between_reads_is_none_of_the_heads_time() -> None:
    times = {"first_byte_timeout": 3600.0, "idle_timeout": 1.0}
    async with ScriptedUpstream() as scripted, calling(scripted.url, **times) as client:
        scripted.will(Reply.sse(b"data: 1\n\n", Gate()))
        answer = await client.open(post(scripted.url), {})
        assert await answer.read() == b"data: 1\n\n"
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(CallError) as raised:
                await answer.read()
        assert raised.value.reason is Reason.UPSTREAM_TIMEOUT
        answer.close()


async def test_a_caller_that_takes_its_time_is_no_silence() -> None:
    gate = Gate()
    async with ScriptedUpstream() as scripted, calling(scripted.url, idle_timeout=0.2) as client:
        scripted.will(Reply.sse(b"data: 1\n\n", gate, b"data: 2\n\n"))
        answer = await client.open(post(scripted.url), {})
        assert await answer.read() == b"data: 1\n\n"
        await asyncio.sleep(0.6)  # the time itself is what this is about
        gate.set()
        assert await answer.read() == b"data: 2\n\n"
        answer.close()


async def test_what_came_in_time_counts_however_late_we_see_it() -> None:
    """An event loop that is held up finds the bytes and the end of their time together."""
    sent = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na")
                sent.wait(PATIENCE)
                connection.sendall(b"b")
                sent.clear()
                sent.wait(PATIENCE)
                connection.sendall(b"c")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        async with calling(url, idle_timeout=1.0) as client:
            answer = await client.open(post(url), {})
            assert await answer.read() == b"a"
            reading = asyncio.create_task(answer.read())
            await asyncio.sleep(0)  # it waits now
            sent.set()
            while sent.is_set():
                time.sleep(0.001)  # noqa: ASYNC251 (what holds the loop up)
            time.sleep(1.1)  # noqa: ASYNC251
            assert await reading == b"b"
            sent.set()
            assert await answer.read() == b"c"
            answer.close()
        await asyncio.to_thread(thread.join)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: no certificate can be made")
async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's certificates decide: a certificate that is among them serves, another does not."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, [*make, *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsealed")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with calling(url) as client:
            with pytest.raises(CallError) as raised:
                await client.open(post(url), {})
            assert raised.value.reason is Reason.UPSTREAM_UNREACHABLE
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with calling(url) as client:
            assert await body_of(await client.open(post(url), {})) == b"sealed"

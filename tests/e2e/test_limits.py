"""What may grow has a limit, and what is beyond it is told so: docs/operations.md, "Limits", has the table."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from support import services
from support.client import Answer, Client, ask
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

from trestle.http2 import frames

pytestmark = pytest.mark.asyncio(loop_scope="session")

FUNCTION = {"name": "f", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": FUNCTION}
MESSAGE = 100_000
"""Bytes of the largest gRPC message."""
SECRET = b"sk-not-to-be-logged"


@dataclass(frozen=True)
class Bridge:
    """small: a gateway whose own limits are soon met. wide: one with the usual ones. crowded: one that asks its worker
    one thing at a time; worker: that one's address. The upstreams `alone` and `one-waits` are asked so
    too; at the second one one may wait."""

    upstream: ScriptedUpstream
    small: Service
    wide: Service
    crowded: Service
    worker: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    folder = tmp_path_factory.mktemp("limits")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(ScriptedUpstream())
        one = {"base_url": upstream.url, "retries": 0}
        upstreams = {
            "free": {**one, "models": ["m"]},
            "alone": {**one, "models": ["alone"], "max_calls": 1, "queue": 0},
            "one-waits": {**one, "models": ["one-waits"], "max_calls": 1, "queue": 1, "queue_timeout": 0.1},
        }
        config = {"worker": {"max_message_bytes": MESSAGE, "openai": {"upstreams": upstreams}}}
        worker = await stack.enter_async_context(
            services.running("worker-openai", "worker", "openai", config=config, folder=folder)
        )

        async def gateway(name: str, settings: dict[str, Any], **endpoint: Any) -> Service:
            workers = {"openai": {"address": worker.address, **endpoint}}
            return await stack.enter_async_context(services.gateway({"workers": workers, **settings}, folder, name))

        limits = {"max_requests": 2, "max_tools": 3, "max_header_bytes": 2048, "max_message_bytes": MESSAGE}
        yield Bridge(
            upstream,
            await gateway("small", limits),
            await gateway("wide", {}),
            await gateway("crowded", {}, max_calls=1, queue=0),
            worker.address,
        )


@pytest_asyncio.fixture(loop_scope="session")
async def bridge(running: Bridge) -> AsyncIterator[Bridge]:
    """At a test's end its upstream must have been asked for all that it had to say."""
    yield running
    assert not running.upstream.forget(), "replies that nobody asked for"


@pytest_asyncio.fixture(loop_scope="session")
async def small(bridge: Bridge) -> AsyncIterator[Client]:
    async with Client(bridge.small.address) as client:
        yield client
    assert not bridge.upstream.forget(), "replies that nobody asked for"


@pytest_asyncio.fixture(loop_scope="session")
async def wide(bridge: Bridge) -> AsyncIterator[Client]:
    async with Client(bridge.wide.address) as client:
        yield client
    assert not bridge.upstream.forget(), "replies that nobody asked for"


def assert_overloaded(answer: Answer) -> None:
    """Turned away, with a time to come back."""
    assert (answer.status, answer.error()["type"]) == (503, "service_unavailable")
    assert answer.error()["code"] == "overloaded"
    assert answer.headers["retry-after"] == "1"


def held() -> tuple[Gate, Reply]:
    """A streamed answer that goes on once its gate is open."""
    gate = Gate()
    return gate, Reply.sse(sse(chunk({"content": "Hel"})), gate, *text_stream(["lo."]))


async def test_requests_at_once(small: Client, bridge: Bridge) -> None:
    first, second = held(), held()
    bridge.upstream.will(first[1])
    async with small.open(ask("m")) as one:
        await one.text("Hel")
        bridge.upstream.will(second[1])
        async with small.open(ask("m")) as two:
            await two.text("Hel")
            assert_overloaded(await small.chat(ask("m")))
            assert (await small.ask("GET", "/healthz")).status == 200
            second[0].set()
            assert (await two.rest()).done
        bridge.upstream.will(Reply.json(completion()))
        assert (await small.chat(ask("m"))).status == 200
        first[0].set()
        assert (await one.rest()).done


@pytest.mark.parametrize(("name", "tool"), [("tools", TOOL), ("functions", FUNCTION)])
async def test_tools(name: str, tool: dict[str, Any], small: Client, bridge: Bridge) -> None:
    bridge.upstream.will(Reply.json(completion()))
    assert (await small.chat(ask("m", **{name: [tool] * 3}))).status == 200
    answer = await small.chat(ask("m", **{name: [tool] * 4}))
    assert (answer.status, answer.error()["type"]) == (400, "invalid_request_error")
    assert (answer.error()["param"], answer.error()["code"]) == (name, "array_above_max_length")


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-api-key: %b\r\n\r\n" % (SECRET * 200), 431,
                     "header_too_large", id="a header"),
        pytest.param(b"GET /%b HTTP/1.1\r\nhost: a\r\n\r\n" % (SECRET * 200), 431, "header_too_large", id="the line"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + b"x-a: %b\r\n" % SECRET * 500 + b"\r\n", 400,
                     "bad_request", id="too many headers"),
        pytest.param(b"%b\r\n\r\n" % SECRET, 400, "bad_request", id="no HTTP"),
    ],
)  # fmt: skip
async def test_heads(head: bytes, status: int, code: str, bridge: Bridge) -> None:
    """They are answered as all errors are, and nothing of them is repeated, to the client or in the log."""
    host, _, port = bridge.small.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head)
    async with asyncio.timeout(PATIENCE):
        said, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    answer = Answer(int(said.split(b" ")[1]), {"content-type": "application/json"}, body)
    assert (answer.status, answer.error()["code"]) == (status, code)
    assert b"x-request-id: req_" in said
    assert SECRET not in body
    logged = bridge.small.new_log()
    assert SECRET.decode() not in logged
    assert "Traceback" not in logged


async def test_a_request_too_large_for_the_worker(wide: Client, bridge: Bridge) -> None:
    answer = await wide.chat(ask("m", user="x" * MESSAGE))
    assert (answer.status, answer.error()["code"]) == (502, "worker_failed")
    assert bridge.upstream.requests == []


async def test_an_answer_too_large_for_the_gateway(small: Client, bridge: Bridge) -> None:
    """In one piece; a stream of the same size comes in many."""
    text = "x" * MESSAGE
    bridge.upstream.will(Reply.json(completion(text)))
    answer = await small.chat(ask("m"))
    assert (answer.status, answer.error()["code"]) == (502, "worker_failed")
    bridge.upstream.will(Reply.sse(*text_stream([text[:10_000]] * 10)))
    assert (await small.stream(ask("m"))).text() == text


async def test_calls_of_an_upstream(wide: Client, bridge: Bridge) -> None:
    gate, reply = held()
    bridge.upstream.will(reply)
    async with wide.open(ask("alone")) as one:
        await one.text("Hel")
        assert_overloaded(await wide.chat(ask("alone")))
        gate.set()
        assert (await one.rest()).done
    bridge.upstream.will(Reply.json(completion()))
    assert (await wide.chat(ask("alone"))).status == 200


async def test_the_queue_of_an_upstream(wide: Client, bridge: Bridge) -> None:
    """Who waits in it does not wait for long."""
    gate, reply = held()
    bridge.upstream.will(reply)
    async with wide.open(ask("one-waits")) as one:
        await one.text("Hel")
        for answer in await asyncio.gather(*(wide.chat(ask("one-waits")) for _ in range(3))):
            assert_overloaded(answer)
        gate.set()
        assert (await one.rest()).done
    assert len(bridge.upstream.requests) == 1


async def test_calls_of_a_worker(bridge: Bridge) -> None:
    gate, reply = held()
    bridge.upstream.will(reply)
    async with Client(bridge.crowded.address) as client:
        async with client.open(ask("m")) as one:
            await one.text("Hel")
            assert_overloaded(await client.chat(ask("m")))
            gate.set()
            assert (await one.rest()).done
        bridge.upstream.will(Reply.json(completion()))
        assert (await client.chat(ask("m"))).status == 200


async def connect(service: Service) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*service.address.split(":"))


async def all_from(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed, be it by a reset, as when bytes that were sent are not read."""
    said = b""
    with suppress(ConnectionResetError):
        while piece := await reader.read(8192):
            said += piece
    return said


async def while_trickling(writer: asyncio.StreamWriter, answer: Coroutine[Any, Any, bytes]) -> bytes:
    """The answer, that comes while bytes are sent now and then."""
    coming = asyncio.create_task(answer)
    while not coming.done():
        writer.write(b"x")
        await asyncio.wait((coming,), timeout=0.05)
    return await coming


@pytest.mark.parametrize(
    ("settings", "trickles"),
    [
        pytest.param({"body_timeout": 0.3}, False, id="stops"),
        pytest.param({"timeout": 0.5}, True, id="trickles"),
    ],
)
async def test_a_body_that_does_not_come(settings: dict[str, float], trickles: bool, tmp_path: Path) -> None:
    async with services.gateway({"workers": {"w": "127.0.0.1:1"}, **settings}, tmp_path, "impatient") as gateway:
        reader, writer = await connect(gateway)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n{")
        answer = reader.readuntil(b"}}")
        async with asyncio.timeout(PATIENCE):
            said = await (while_trickling(writer, answer) if trickles else answer)
        writer.transport.abort()
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ")
    assert json.loads(body)["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    ("beginning", "trickles"),
    [
        pytest.param(b"", False, id="none"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-a: ", True, id="trickles"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", False, id="no other one"),
    ],
)
async def test_a_head_that_does_not_come(beginning: bytes, trickles: bool, tmp_path: Path) -> None:
    async with services.gateway({"workers": {"w": "127.0.0.1:1"}, "head_timeout": 0.3}, tmp_path, "brisk") as gateway:
        reader, writer = await connect(gateway)
        writer.write(beginning)
        async with asyncio.timeout(PATIENCE):
            said = await (while_trickling(writer, all_from(reader)) if trickles else all_from(reader))
        writer.transport.abort()
    assert said.startswith(b"HTTP/1.1 200 ") if beginning.endswith(b"\r\n\r\n") else not said


async def test_no_head_is_awaited_while_there_is_an_answer(tmp_path: Path, bridge: Bridge) -> None:
    settings = {"workers": {"openai": bridge.worker}, "head_timeout": 0.3}
    async with services.gateway(settings, tmp_path, "brisk") as gateway, Client(gateway.address) as client:
        gate, reply = held()
        bridge.upstream.will(reply)
        async with client.open(ask("m")) as stream:
            await stream.text("Hel")
            reader, writer = await connect(gateway)
            async with asyncio.timeout(PATIENCE):
                assert await reader.read() == b""
            writer.close()
            gate.set()
            assert (await stream.rest()).done


async def test_connections(tmp_path: Path) -> None:
    settings = {"workers": {"openai": "127.0.0.1:1"}, "max_connections": 2}
    async with services.gateway(settings, tmp_path, "narrow") as gateway:
        address = gateway.address.split(":")
        open_ones = [await asyncio.open_connection(*address) for _ in range(2)]
        for reader, writer in open_ones:
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        async with Client(gateway.address) as client:
            assert_overloaded(await client.ask("GET", "/healthz"))
            open_ones[0][1].close()
            async with asyncio.timeout(PATIENCE):
                while (await client.ask("GET", "/healthz")).status != 200:
                    pass
        open_ones[1][1].close()


@pytest.mark.parametrize(
    ("kind", "says", "hears"),
    [
        ("gateway", b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 200"),
        ("worker", frames.PREFACE + frames.settings({}), b"\0\0"),  # the beginning of a frame
    ],
    ids=["gateway", "worker"],
)
async def test_nobody_is_lost_who_comes_while_it_is_busy(kind: str, says: bytes, hears: bytes, tmp_path: Path) -> None:
    if kind == "worker":
        running = services.worker("echo", tmp_path)
    else:
        running = services.gateway({"workers": {"openai": "127.0.0.1:1"}}, tmp_path, "busy")
    async with running as service:
        host, _, port = service.address.rpartition(":")
        service.process.send_signal(signal.SIGSTOP)
        with ExitStack() as stack:
            stack.callback(service.process.send_signal, signal.SIGCONT)
            # Each is there at once, or only when its first packet is sent again.
            clients = [stack.enter_context(socket.create_connection((host, int(port)), PATIENCE)) for _ in range(300)]
            for client in clients:
                client.sendall(says)
            service.process.send_signal(signal.SIGCONT)
            for client in clients:
                assert (await asyncio.to_thread(client.recv, len(hears))) == hears


async def test_calls_of_the_whole_worker(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        settings = {"max_calls": 1, "openai": {"upstreams": {"u": {"base_url": upstream.url, "retries": 0}}}}
        running = services.running("worker", "worker", "openai", config={"worker": settings}, folder=tmp_path)
        async with running as worker:
            models = [{"name": "m", "targets": [{"worker": "w", "model": "m"}]}]
            gateway = services.gateway({"workers": {"w": worker.address}, "models": models}, tmp_path)
            async with gateway as served, Client(served.address) as client:
                gate, reply = held()
                upstream.will(reply)
                async with client.open(ask("m")) as one:
                    await one.text("Hel")
                    assert_overloaded(await client.chat(ask("m")))
                    gate.set()
                    assert (await one.rest()).done
                upstream.will(Reply.json(completion()))
                assert (await client.chat(ask("m"))).status == 200

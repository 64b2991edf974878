"""The shape of what a request and a chunk cost, counted and not timed: messages, writes, calls of functions. A change
that makes one of these grow is a change of shape, and must be meant."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from sqlalchemy import event
from support import services
from support.chain import model
from support.client import ask
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, text_stream

from gateway.ledger.rows import Row
from gateway.openai.request import decode_chat
from gateway.openai.stream import ChatStreamEncoder
from gateway.rpc import names
from gateway.rpc.channel import Channel
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.usage import UsageStore
from trestle.rpc.call import Call
from trestle.rpc.method import Method
from trestle.rpc.server import Server
from trestle.v1 import chat_pb2, worker_service_pb2_grpc
from worker.families.openai import FAMILY
from worker.family import Upstream
from worker.sse import SseParser

CHUNKS = 200


@asynccontextmanager
async def chain(folder: Path, upstream: ScriptedUpstream, **route: Any) -> AsyncIterator[tuple[Service, Service]]:
    """route: settings of the model `m`."""
    upstreams = {"first": {"base_url": upstream.url}}
    async with services.worker("openai", folder, upstreams) as worker:
        settings = {"workers": {"openai": worker.address}, "models": [{**model("m", "first"), **route}]}
        async with services.gateway(settings, folder) as gateway:
            yield gateway, worker


async def writes(address: str) -> AsyncIterator[None]:
    """Each time the gateway writes to a client that asked for a stream: a chunk of HTTP's own."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    body = json.dumps({**ask("m"), "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"\r\n\r\n")
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
            yield
    writer.close()


async def messages(address: str, *metadata: tuple[str, str]) -> AsyncIterator[None]:
    """Each response of the worker's for the same stream."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
        request = chat_pb2.ChatRequest(model="m", stream=True)
        request.messages.add(role=chat_pb2.ROLE_USER, text="Hi?")
        async for _ in stub.Chat(request, timeout=PATIENCE, metadata=metadata):
            yield


async def test_what_comes_together_travels_together(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, chain(tmp_path, upstream) as (gateway, worker):
        events = text_stream(["word"] * CHUNKS)
        whole = b"".join(events)
        reads = -(-len(whole) // (32 * 1024)) + 1  # what one read may hold; the head comes with the first
        upstream.will(Reply.sse(whole), Reply.sse(whole))
        assert len([each async for each in messages(worker.address)]) <= reads
        assert len([each async for each in writes(gateway.address)]) <= reads + 1


async def test_what_comes_alone_is_one_message_and_one_write(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, chain(tmp_path, upstream) as (gateway, worker):
        for pieces in (messages(worker.address), writes(gateway.address)):
            role, first, second, third, *end = text_stream(["one", "two", "three"])
            gates = [Gate() for _ in range(3)]
            parts = (second, third, b"".join(end))
            steps = [step for gate, part in zip(gates, parts, strict=True) for step in (gate, part)]
            upstream.will(Reply.sse(role + first, *steps))
            count = 0
            async for _ in pieces:
                # The next one comes when this one has been seen, and so never together with it.
                if count < len(gates):
                    gates[count].set()
                count += 1
            assert count == 1 + len(gates)


async def test_what_may_wait_travels_together(tmp_path: Path) -> None:
    """`flush_interval`: the first text leaves at once, what comes within a second of it together."""
    flush = 1.0
    async with ScriptedUpstream() as upstream, chain(tmp_path, upstream, flush_interval=flush) as (gateway, worker):
        told = ("x-trestle-flush-interval", f"{flush:g}")
        for pieces in (messages(worker.address, told), writes(gateway.address)):
            role, *words, finish, done = text_stream(["word"] * 20)
            gates = [Gate() for _ in words]
            steps = [step for gate, word in zip(gates, words, strict=True) for step in (word, gate)]
            upstream.will(Reply.sse(role, *steps, finish + done))
            counted = 0
            async for _ in pieces:
                counted += 1
                for gate in gates:
                    gate.set()
                    await asyncio.sleep(0.01)  # so that each piece is a write of its own, as fast as models are
            assert 2 <= counted <= 6


@pytest.mark.parametrize("told", ["soon", "-1", "11", "nan", ""])
async def test_an_interval_that_is_none(tmp_path: Path, told: str) -> None:
    async with ScriptedUpstream() as upstream, chain(tmp_path, upstream) as (_, worker):
        upstream.will(Reply.sse(*text_stream(["word"])))
        asked = messages(worker.address, ("x-trestle-flush-interval", told))
        if not told:  # says nothing
            assert [each async for each in asked]
            return
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(asked)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "x-trestle-flush-interval" in str(caught.value.details())
        assert not upstream.requests


async def test_calls_of_one_turn_share_writes() -> None:
    """Both ways, over the one connection between gateway and worker; and a call alone is one write each way."""

    async def answer(request: chat_pb2.ChatRequest, call: Call) -> chat_pb2.ChatResponse:
        return chat_pb2.ChatResponse(chunks=[chat_pb2.ChatChunk(text=request.model)])

    server = Server()
    server.add({"/s/Chat": Method(answer, chat_pb2.ChatRequest.FromString, chat_pb2.ChatResponse.SerializeToString)})
    channel = Channel(
        names.parse(await server.listen("listen", "127.0.0.1:0")), "", context=None, tls_name="", balance="round_robin",
        resolve_interval=1, max_message_bytes=1 << 20,
    )  # fmt: skip
    chat = channel.method("s", "Chat", chat_pb2.ChatResponse)

    async def ask_for(name: str) -> str:
        response = await chat(chat_pb2.ChatRequest(model=name), PATIENCE, ()).single()
        return str(response.chunks[0].text)

    assert await ask_for("first") == "first"
    sends = 0

    def seen(frame: object, what: str, argument: Any) -> None:
        nonlocal sends
        sends += what == "c_call" and argument.__name__ == "send"

    counts = []
    for asked in (["alone"], [f"m{number}" for number in range(50)]):
        sends = 0
        sys.setprofile(seen)
        try:
            assert await asyncio.gather(*map(ask_for, asked)) == asked
        finally:
            sys.setprofile(None)
        counts.append(sends)
    await channel.close()
    await server.stop(PATIENCE)
    assert counts[0] == 2
    assert counts[1] <= 6


def calls(work: Callable[[], object]) -> int:
    """How many functions of Python are called."""
    count = 0

    def seen(frame: object, what: str, argument: object) -> None:
        nonlocal count
        count += what == "call"

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count - 1


def test_a_chunk_passes_through_few_hands() -> None:
    text = [chat_pb2.ChatChunk(text="word") for _ in range(CHUNKS)]
    encoder = ChatStreamEncoder(False)
    encoder.feed([chat_pb2.ChatChunk(started=chat_pb2.Started(id="c", model="m", created=1)), text[0]])
    assert calls(lambda: encoder.feed(text)) <= 2 * CHUNKS + 10

    request = chat_pb2.ChatRequest(model="m", stream=True)
    upstream: Any = Upstream("u", FAMILY.upstream_type(base_url="http://u/v1"))
    decoder = FAMILY.chat_decoder(request, upstream)
    sse = SseParser(1 << 20)
    role, *words = text_stream(["word"] * CHUNKS)[:-2]
    response = chat_pb2.ChatResponse()

    def decode(data: bytes) -> None:
        for each in sse.feed(data):
            decoder.feed(each, response.chunks)

    decode(role + words[0])
    data = b"".join(words[1:])
    assert calls(lambda: decode(data)) <= 3 * CHUNKS + 30
    assert len(response.chunks) >= CHUNKS


def test_a_body_is_read_once() -> None:
    body = json.dumps(ask("m", messages=[{"role": "user", "content": "x" * 100_000}] * 10)).encode()
    small = json.dumps(ask("m", messages=[{"role": "user", "content": "x"}] * 10)).encode()
    decode_chat(small)
    assert calls(lambda: decode_chat(body)) == calls(lambda: decode_chat(small)), "the work is by parts, not by bytes"


async def test_rows_share_statements(tmp_path: Path) -> None:
    empty: dict[Any, Any] = {str: "", int: 0, bool: False}
    values: dict[str, Any] = {field.name: empty[field.type] for field in msgspec.structs.fields(Row)}
    database = Database(parse(f"sqlite:///{tmp_path}/t.db"))
    await migrate(database)
    seen: list[str] = []
    listen: Any = event.listen
    engine = database._engine.sync_engine  # noqa: SLF001 (to hear what it is told)
    listen(engine, "before_cursor_execute", lambda *told: seen.append(told[2].split()[0]))
    await UsageStore(database).add([Row(**{**values, "id": str(number)}) for number in range(400)])
    assert seen.count("INSERT") <= 1 + 4 + 4, "256, 32 and 4 at a time"
    assert seen.count("BEGIN") <= 1
    await database.close()

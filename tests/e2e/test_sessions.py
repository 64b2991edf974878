"""What listeners of a session are told, over HTTP and gRPC, while its requests run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from support import services
from support.accounts import Bridge
from support.client import Client, ask
from support.redis import Missing, RedisServer, redis_server
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

from trestle.v1 import session_pb2, session_service_pb2_grpc

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": ""}}
MORE = {"index": 0, "function": {"arguments": '{"a":1}'}}


class Listener:
    """Reads one session's events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._buffer = b""

    async def event(self) -> dict[str, Any]:
        """The next event's data, its SSE id and name checked; comments are passed over."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while b"\n\n" not in self._buffer:
                    data = await self._response.content.readany()
                    assert data, "the stream of events ended"
                    self._buffer += data
                block, _, self._buffer = self._buffer.partition(b"\n\n")
                fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if line[:1] != ":")
                if "data" in fields:
                    value: dict[str, Any] = json.loads(fields["data"])
                    assert (fields["event"], fields.get("id")) == (value["type"], value.get("id"))
                    return value

    async def until(self, *types: str) -> list[dict[str, Any]]:
        """Events up to the first of one of these types."""
        found = [await self.event()]
        while found[-1]["type"] not in types:
            found.append(await self.event())
        return found

    async def end(self) -> None:
        """Returns when the stream of events has ended properly, without another one."""
        async with asyncio.timeout(PATIENCE):
            assert b"data" not in self._buffer + await self._response.content.read()


class Served:
    def __init__(self, service: Service, client: Client, upstream: ScriptedUpstream, grpc_address: str) -> None:
        self.service = service
        self.client = client
        self.upstream = upstream
        self.grpc_address = grpc_address

    @asynccontextmanager
    async def listen(self, session: str, **headers: str) -> AsyncIterator[Listener]:
        async with listening(self.service.address, session, **headers) as listener:
            yield listener


@asynccontextmanager
async def listening(address: str, session: str, **headers: str) -> AsyncIterator[Listener]:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    url = f"http://{address}/v1/sessions/{session}/events"
    async with aiohttp.ClientSession() as http, http.get(url, headers=named) as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Listener(response)


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with ScriptedUpstream() as upstream:
        upstreams = {"u": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {"workers": {"w": worker.address}, "grpc": services.FREE_PORT}
            async with services.gateway(settings, folder) as service, Client(service.address) as client:
                assert service.process.stdout is not None
                line = (await service.process.stdout.readline()).decode()
                yield Served(service, client, upstream, line.split()[-1])


async def test_a_stream_is_told_while_it_happens(tmp_path: Path) -> None:
    async with served(tmp_path) as it, it.listen("s1") as listener:
        gate = Gate()
        role = sse(chunk({"role": "assistant", "content": None}))
        _, _, finish, usage, done = text_stream(["x"], "tool_calls")
        it.upstream.will(
            Reply.sse(
                role,
                sse(chunk({"tool_calls": [CALL]})),
                gate,
                sse(chunk({"tool_calls": [MORE]})),
                finish,
                usage,
                done,
            )
        )
        request = ask("m")
        async with it.client.open(request, x_session_id="s1", x_client_id="phone", x_request_id="r1") as stream:
            await stream.event()
            started, call = await listener.until("tool_call.emitted")
            assert (started["type"], started["model"], started["kind"]) == ("request.started", "m", "chat")
            assert (started["stream"], started["client_id"], started["request_id"]) == (True, "phone", "r1")
            assert (call["call_id"], call["name"]) == ("call_1", "look_up")
            assert "arguments" not in json.dumps(call)
            gate.set()
            assert (await stream.rest()).done
        told, finished = await listener.until("request.finished")
        assert told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + told["usage"]["completion_tokens"]
        assert finished["finish_reason"] == "tool_calls"


async def test_an_answer_in_one_piece(tmp_path: Path) -> None:
    async with served(tmp_path) as it, it.listen("s") as listener:
        it.upstream.will(Reply.json(completion()))
        assert (await it.client.chat(ask("m"), x_session_id="s")).status == 200
        events = await listener.until("request.finished")
        assert [event["type"] for event in events] == ["request.started", "usage", "request.finished"]


async def test_a_failure_and_a_client_that_leaves(tmp_path: Path) -> None:
    async with served(tmp_path) as it, it.listen("s") as listener:
        it.upstream.will(Reply.json({"error": {"message": "No.", "type": "invalid_request_error"}}, 400))
        assert (await it.client.chat(ask("m"), x_session_id="s")).status == 400
        failed = (await listener.until("request.failed"))[-1]
        assert (failed["outcome"], failed["message"]) == ("failed", "No.")
        it.upstream.will(Reply.sse(*text_stream(["a few words"])[:2], Gate()))
        async with it.client.open(ask("m"), x_session_id="s") as stream:
            await stream.text("a few words")
            stream.hang_up()
        events = await listener.until("request.failed")
        assert events[-1]["outcome"] == "cancelled"
        assert events[-2]["usage"]["estimated"] is True
        assert events[-2]["usage"]["completion_tokens"] == 3


async def test_a_listener_that_comes_back_has_missed_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        async with it.listen("s") as listener:
            it.upstream.will(Reply.json(completion()))
            await it.client.chat(ask("m"), x_session_id="s", x_request_id="one")
            seen = await listener.event()
        it.upstream.will(Reply.json(completion()))
        await it.client.chat(ask("m"), x_session_id="s", x_request_id="two")
        async with it.listen("s", last_event_id=seen["id"]) as listener:
            events = [await listener.event() for _ in range(5)]
        assert [event["request_id"] for event in events] == ["one", "one", "two", "two", "two"]
        assert [event["type"] for event in events] == [
            *("usage", "request.finished", "request.started", "usage", "request.finished")
        ]


async def test_over_grpc(tmp_path: Path) -> None:
    async with served(tmp_path) as it, grpc.aio.insecure_channel(it.grpc_address) as channel:
        stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)
        watch = aiter(stub.WatchSession(session_pb2.WatchSessionRequest(session="s")))
        it.upstream.will(Reply.json(completion()))
        await it.client.chat(ask("m"), x_session_id="s", x_request_id="one")
        async with asyncio.timeout(PATIENCE):
            events = [(await anext(watch)).event for _ in range(3)]
        assert [event.WhichOneof("event") for event in events] == ["started", "usage", "finished"]
        assert {event.request_id for event in events} == {"one"}
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.WatchSession(session_pb2.WatchSessionRequest(session="s", after="x"))))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_gateway_ends_while_somebody_listens(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as it,
        it.listen("s") as listener,
        grpc.aio.insecure_channel(it.grpc_address) as channel,
    ):
        stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)
        it.upstream.will(Reply.json(completion()))
        await it.client.chat(ask("m"), x_session_id="s")
        watch = stub.WatchSession(session_pb2.WatchSessionRequest(session="s"), timeout=PATIENCE)
        for _ in range(3):
            await watch.read()
        await listener.until("request.finished")
        assert await it.service.stop() == 0
        await listener.end()
        assert await watch.read() is grpc.aio.EOF
        assert await watch.code() is grpc.StatusCode.OK


async def test_only_the_head_is_asked_for(tmp_path: Path) -> None:
    """Nothing follows it on the connection."""
    async with served(tmp_path) as it:
        reader, writer = await asyncio.open_connection(*it.service.address.split(":"))
        writer.write(b"HEAD /v1/sessions/s/events HTTP/1.1\r\nhost: x\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            following = await reader.readline()
        writer.close()
    assert b"content-type: text/event-stream" in head
    assert following == b"HTTP/1.1 200 OK\r\n"


async def test_an_id_that_no_event_has(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        answer = await it.client.ask("GET", "/v1/sessions/s/events?after=x")
        assert (answer.status, answer.error()["param"]) == (400, "after")


@pytest.mark.asyncio(loop_scope="session")
async def test_an_account_hears_of_its_own_alone(bridge: Bridge) -> None:
    mine, other = await bridge.key(), await bridge.key()
    address = bridge.first.service.address
    async with (
        listening(address, "same", authorization=f"Bearer {mine}") as hears,
        listening(address, "same", authorization=f"Bearer {other}") as does_not,
    ):
        for key, name in ((other, "theirs"), (mine, "mine")):
            bridge.upstream.will(Reply.json(completion()))
            path, headers = "/v1/chat/completions", {"x-session-id": "same", "x-request-id": name}
            assert (await bridge.first.ask("POST", path, key, ask("scripted"), **headers)).status == 200
        assert {event["request_id"] for event in await hears.until("request.finished")} == {"mine"}
        assert {event["request_id"] for event in await does_not.until("request.finished")} == {"theirs"}
    for key, status in (("", 401), ("wrong", 401), (await bridge.key(scopes=["embeddings"]), 403)):
        answer = await bridge.first.ask("GET", "/v1/sessions/same/events", key)
        assert answer.status == status


async def test_over_redis_every_gateway_tells_of_all(tmp_path: Path) -> None:
    try:
        with redis_server(tmp_path) as redis:
            await _over_redis(tmp_path, redis)
    except Missing as missing:
        pytest.skip(str(missing))


async def _over_redis(folder: Path, redis: RedisServer) -> None:
    async with ScriptedUpstream() as upstream:
        upstream.always = lambda _: Reply.json(completion())
        upstreams = {"u": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {"workers": {"w": worker.address}, "redis": redis.url, "sessions": {"events": 5}}
            one, two = (services.gateway(settings, folder, name) for name in ("one", "two"))
            async with one as first, two as second, Client(first.address) as client:
                async with listening(second.address, "s") as listener:
                    await client.chat(ask("m"), x_session_id="s", x_request_id="r1")
                    events = await listener.until("request.finished")
                    assert [event["type"] for event in events] == ["request.started", "usage", "request.finished"]
                async with listening(second.address, "s", last_event_id=events[0]["id"]) as listener:
                    assert (await listener.event())["id"] == events[1]["id"]
                    redis.stop()
                    await second.logged("session events: Redis cannot be reached")
                    redis.start()
                    await client.chat(ask("m"), x_session_id="s", x_request_id="r2")
                    seen = await listener.until("request.failed", "request.finished")
                    while seen[-1]["request_id"] != "r2":
                        seen = await listener.until("request.failed", "request.finished")
                for _ in range(200):  # streams are trimmed in pieces
                    await client.chat(ask("m"), x_session_id="s")
                async with listening(second.address, "s") as listener:
                    assert (await listener.event())["type"] == "session.gap"

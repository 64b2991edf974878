"""Whoever gives up, the client, the caller of an RPC or a deadline: the upstream's connection is closed and nothing is
left behind, in whatever state the answer was."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
import pytest_asyncio
from support import services
from support.client import Client
from support.process import Held, held_by
from support.services import Service
from support.upstream import PATIENCE, Framing, Gate, Reply, Request, ScriptedUpstream, chunk, completion, sse

from trestle.v1 import chat_pb2, worker_service_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="session")

MANY = 2_000
AT_ONCE = 50
BREATH = 3
"""Threads by which gRPC's own pool grows and shrinks with the load."""
HELLO = sse(chunk({"role": "assistant", "content": "Hel"}))
FLOOD = sse(chunk({"content": "x" * 10_000}))
JSON = {"content-type": "application/json"}
STATES: dict[str, Callable[[], Reply]] = {
    "before the first byte": lambda: Reply([Gate()], framing=Framing.BARE),
    "after the head": lambda: Reply.sse(Gate()),
    "in an event": lambda: Reply.sse(b"data: {", Gate()),
    "in a whole answer": lambda: Reply([b'{"choices":', Gate()], headers=JSON),
    "while silent": lambda: Reply.sse(HELLO, Gate()),
    "while it flows": lambda: Reply.sse(HELLO, *[FLOOD] * 10_000),
}
SPOKEN = frozenset({"while silent", "while it flows"})
"""States in which a stream has had content."""
_NAME = re.compile(rb"number (\d+): ([a-z ]+)!")


class Bridge:
    """A gateway, a worker, an upstream that answers each request as its text says, and who was seen there."""

    def __init__(self, upstream: ScriptedUpstream, worker: Service, gateway: Service) -> None:
        self.worker = worker
        self.gateway = gateway
        self._numbers = itertools.count()
        self._seen: dict[int, asyncio.Future[Request]] = {}
        upstream.always = self._answer

    def text(self, state: str) -> tuple[int, str]:
        """A new request's number, and the text by which the upstream knows it."""
        number = next(self._numbers)
        self._seen[number] = asyncio.get_running_loop().create_future()
        return number, f"number {number}: {state}!"

    async def reached(self, number: int) -> Request:
        """The request, once it has reached the upstream."""
        async with asyncio.timeout(PATIENCE):
            return await self._seen[number]

    async def closed(self, number: int) -> None:
        """Returns once the upstream knows that nobody wants its answer; at once if it was never asked."""
        seen = self._seen.pop(number)
        if seen.done():
            await seen.result().closed()
            assert not seen.result().answered.is_set()

    def held(self) -> tuple[Held, Held]:
        """By the gateway and by the worker."""
        return held_by(self.gateway), held_by(self.worker)

    def _answer(self, request: Request) -> Reply:
        found = _NAME.search(request.body)
        if found is None:
            return Reply.json(completion())
        self._seen[int(found[1])].set_result(request)
        return STATES[found[2].decode()]()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bridge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bridge]:
    folder = tmp_path_factory.mktemp("leaks")
    async with ScriptedUpstream() as upstream:
        upstreams = {"only": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {"workers": {"openai": worker.address}}
            async with services.gateway(settings, folder) as gateway:
                yield Bridge(upstream, worker, gateway)


@pytest_asyncio.fixture(loop_scope="session")
async def client(bridge: Bridge) -> AsyncIterator[Client]:
    async with Client(bridge.gateway.address) as client:
        yield client


@asynccontextmanager
async def direct(bridge: Bridge) -> AsyncIterator[Any]:
    """The worker's methods for a caller of gRPC."""
    async with grpc.aio.insecure_channel(bridge.worker.address) as channel:
        yield worker_service_pb2_grpc.WorkerServiceStub(channel)


def asked(text: str, stream: bool) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}


def called(text: str, stream: bool) -> chat_pb2.ChatRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)
    return chat_pb2.ChatRequest(model="m", messages=[message], stream=stream)


async def hang_up(bridge: Bridge, client: Client, stub: Any, state: str, stream: bool) -> None:
    """A client closes its connection; after content, if there is some."""
    number, text = bridge.text(state)
    if stream and state in SPOKEN:
        async with client.open(asked(text, stream)) as answer:
            await answer.event()
            answer.hang_up()
            await bridge.closed(number)
        return
    asking = asyncio.ensure_future(client.chat(asked(text, stream)))
    await bridge.reached(number)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await bridge.closed(number)


async def cancel(bridge: Bridge, client: Client, stub: Any, state: str, stream: bool) -> None:
    """A caller of gRPC cancels its call; after content, if there is some."""
    number, text = bridge.text(state)
    call = stub.Chat(called(text, stream))
    if stream and state in SPOKEN:
        assert (await call.read()).chunks
        call.cancel()
    else:
        reading = asyncio.ensure_future(call.read())
        await bridge.reached(number)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    await bridge.closed(number)


async def http_deadline(bridge: Bridge, client: Client, stub: Any, state: str, stream: bool) -> None:
    """The request's own deadline passes."""
    number, text = bridge.text(state)
    answer = await client.chat(asked(text, stream), x_request_timeout="1.0")
    assert b'"deadline_exceeded"' in answer.body[-300:]
    assert b"[DONE]" not in answer.body[-300:]
    assert answer.status == 504 or (stream and answer.status == 200)
    await bridge.closed(number)


async def rpc_deadline(bridge: Bridge, client: Client, stub: Any, state: str, stream: bool) -> None:
    """The call's own deadline passes."""
    number, text = bridge.text(state)
    call = stub.Chat(called(text, stream), timeout=1.0)
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await bridge.closed(number)


Way = Callable[[Bridge, Client, Any, str, bool], Awaitable[None]]
WAYS: dict[str, Way] = {
    "client": hang_up,
    "rpc": cancel,
    "deadline": http_deadline,
    "rpc deadline": rpc_deadline,
}
# A whole answer that flows without end meets its own limit.
CASES = [
    (way, state, stream)
    for way in WAYS
    for state in STATES
    for stream in (False, True)
    if stream or state != "while it flows"
]
NAMES = [f"{way}-{state}-{'stream' if stream else 'whole'}" for way, state, stream in CASES]


@pytest.mark.parametrize(("way", "state", "stream"), CASES, ids=NAMES)
async def test_the_upstream_is_let_go(way: str, state: str, stream: bool, bridge: Bridge, client: Client) -> None:
    async with direct(bridge) as stub:
        await WAYS[way](bridge, client, stub, state, stream)


async def abandon(bridge: Bridge, how_many: int) -> None:
    """So many requests, in all states and by all ways in turn."""
    cases = iter(list(itertools.islice(itertools.cycle(CASES), how_many)))

    async def some() -> None:
        for way, state, stream in cases:
            await WAYS[way](bridge, client, stub, state, stream)

    async with Client(bridge.gateway.address) as client, direct(bridge) as stub, asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(some())


async def settled(bridge: Bridge, client: Client, wanted: tuple[Held, Held]) -> tuple[Held, Held]:
    """What both hold once it is no more connections than wanted, or after other work that took long enough for it."""
    for _ in range(500):
        assert (await client.chat(asked("Hello?", stream=False))).status == 200
        now = bridge.held()
        if all(a.sockets <= b.sockets for a, b in zip(now, wanted, strict=True)):
            break
    return now


async def test_many_leave_nothing(
    bridge: Bridge, client: Client, record_property: Callable[[str, object], None]
) -> None:
    """Connections and threads end as many as they began; memory does not grow with the number of those who left."""
    await abandon(bridge, MANY // 2)  # pools, arenas and caches have their size by now
    assert (await client.chat(asked("Hello?", stream=False))).status == 200
    once = bridge.held()
    before = await settled(bridge, client, once)
    await abandon(bridge, MANY)
    after = await settled(bridge, client, before)
    for name, was, now in zip(("gateway", "worker"), before, after, strict=True):
        record_property(name, f"{was} -> {now}")
        assert now.sockets == was.sockets, name
        assert now.threads <= was.threads + BREATH, name
        assert now.memory - was.memory < 5_000 * MANY, name
    for service in (bridge.gateway, bridge.worker):
        assert "Traceback" not in service.new_log()

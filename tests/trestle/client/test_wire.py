"""What the clients send and how they take what comes, at a worker that does as the test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from support.direct import Connect, Threaded, connected, read
from support.dns import HOSTS, NameServer
from support.ports import free_port
from support.upstream import PATIENCE

from trestle.client import CallError, Client, Reason, Truncated, Unavailable, Usage, WorkerFailed, chat_request
from trestle.client.link import SERVICE
from trestle.v1 import chat_pb2, model_pb2

Chunk = chat_pb2.ChatChunk
STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=1))
TEXT = Chunk(text="Hello")
USAGE = Chunk(usage=Usage(input_tokens=3, output_tokens=1))
FINISH = Chunk(finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP))
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
ASK = chat_request("m", "Hello?")


class ScriptedWorker:
    """steps: for each call in turn what it does, the last of them for all that follow: chunks are one response, a pair
    is trailing metadata, a status ends the call. calls: the metadata of each."""

    def __init__(self, *steps: list[Any]) -> None:
        self.steps = list(steps)
        self.calls: list[list[tuple[str, str | bytes]]] = []

    async def chat(self, request: chat_pb2.ChatRequest, context: Any) -> AsyncIterator[chat_pb2.ChatResponse]:
        self.calls.append(list(context.invocation_metadata()))
        for step in self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]:
            if isinstance(step, grpc.StatusCode):
                await context.abort(step, "As it was told.")
            elif isinstance(step, tuple):
                context.set_trailing_metadata((step,))
            else:
                yield chat_pb2.ChatResponse(chunks=step)

    async def list_models(self, request: model_pb2.ListModelsRequest, context: Any) -> model_pb2.ListModelsResponse:
        self.calls.append(list(context.invocation_metadata()))
        return model_pb2.ListModelsResponse()


@asynccontextmanager
async def serving(worker: ScriptedWorker, listen: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Where it serves."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    handlers: Any = {
        "Chat": grpc.unary_stream_rpc_method_handler(
            worker.chat, chat_pb2.ChatRequest.FromString, chat_pb2.ChatResponse.SerializeToString
        ),
        "ListModels": grpc.unary_unary_rpc_method_handler(
            worker.list_models, model_pb2.ListModelsRequest.FromString, model_pb2.ListModelsResponse.SerializeToString
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port(listen)
    await server.start()
    try:
        yield f"{listen.rpartition(':')[0]}:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def scripted(connect: Connect, *steps: list[Any], **options: Any) -> AsyncIterator[tuple[Client, ScriptedWorker]]:
    worker = ScriptedWorker(*steps)
    async with serving(worker) as target, connected(connect, target, **{"timeout": PATIENCE, **options}) as client:
        yield client, worker


@pytest.fixture(params=[Client, Threaded], ids=["asyncio", "sync"])
def connect(request: pytest.FixtureRequest) -> Connect:
    kind: Connect = request.param
    return kind


class TestTries:
    async def test_a_worker_that_is_away_for_a_moment(self, connect: Connect) -> None:
        steps: list[list[Any]] = [[UNAVAILABLE], [UNAVAILABLE], [[STARTED, TEXT, FINISH]]]
        async with scripted(connect, *steps) as (client, worker):
            assert (await client.complete(ASK)).text == "Hello"
            assert len(worker.calls) == 3
        async with scripted(connect, *steps) as (client, worker):
            stream = client.chat(ASK)
            assert (await read(stream))[1] is None
            assert (stream.answer.text, len(worker.calls)) == ("Hello", 3)

    @pytest.mark.parametrize("retries", [0, 1])
    async def test_as_often_as_it_is_told(self, retries: int, connect: Connect) -> None:
        async with scripted(connect, [UNAVAILABLE], retries=retries) as (client, worker):
            with pytest.raises(Unavailable):
                await client.complete(ASK)
            assert len(worker.calls) == retries + 1

    async def test_a_large_request_too(self, connect: Connect) -> None:
        large = chat_request("m", "x" * 2_000_000)
        async with scripted(connect, [UNAVAILABLE], [[STARTED, TEXT, FINISH]]) as (client, worker):
            assert (await client.complete(large)).text == "Hello"
            assert len(worker.calls) == 2

    @pytest.mark.parametrize(
        "steps",
        [
            [grpc.StatusCode.INTERNAL],
            [grpc.StatusCode.RESOURCE_EXHAUSTED],
            [[STARTED], UNAVAILABLE],
            [("grpc-retry-pushback-ms", "-1"), UNAVAILABLE],
        ],
        ids=["another status", "a limit", "something came", "the worker forbids it"],
    )
    async def test_nothing_else_is_tried_again(self, steps: list[Any], connect: Connect) -> None:
        async with scripted(connect, steps) as (client, worker):
            _, raised = await read(client.chat(ASK))
            assert isinstance(raised, CallError)
            assert len(worker.calls) == 1


class TestWhatIsSent:
    async def test_beside_a_request(self, connect: Connect) -> None:
        async with scripted(connect, [[STARTED, FINISH]], metadata=[("x-of-all", "1")], token="t0ken") as (
            client,
            worker,
        ):
            await client.models(
                request_id="r",
                session_id="s",
                client_id="c",
                account_id="a",
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                tracestate="v=1",
                strict=True,
                metadata=[("x-of-this", "2"), ("x-raw-bin", b"\x00\xff")],
            )
            sent = dict(worker.calls[0])
            assert len(sent) == len(worker.calls[0])
        del sent["user-agent"]
        assert sent == {
            "x-of-all": "1",
            "authorization": "Bearer t0ken",
            "x-request-id": "r",
            "x-session-id": "s",
            "x-client-id": "c",
            "x-account-id": "a",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate": "v=1",
            "x-trestle-strict": "true",
            "x-of-this": "2",
            "x-raw-bin": b"\x00\xff",
        }

    async def test_a_token_is_asked_for_each_time(self, connect: Connect) -> None:
        tokens = iter(["first", "second"])
        async with scripted(connect, [], token=lambda: next(tokens)) as (client, worker):
            await client.models()
            await client.models()
            shown = [dict(metadata)["authorization"] for metadata in worker.calls]
        assert shown == ["Bearer first", "Bearer second"]


class TestWhatComes:
    @pytest.mark.parametrize(
        "chunks",
        [[STARTED, TEXT, USAGE], [TEXT, FINISH, USAGE], [STARTED, FINISH, Chunk(choice=1, text="a"), USAGE]],
        ids=["no finish", "no beginning", "one choice without a finish"],
    )
    async def test_an_end_that_is_none(self, chunks: list[Chunk], connect: Connect) -> None:
        """The call ends with OK, and yet it is no answer."""
        async with scripted(connect, [chunks]) as (client, _):
            came, raised = await read(client.chat(ASK))
            assert came == chunks
            assert isinstance(raised, Truncated)
            assert raised.usage == USAGE.usage
            with pytest.raises(Truncated) as caught:
                await client.complete(ASK)
            assert caught.value.usage == USAGE.usage

    async def test_usage_before_a_failure_of_grpc(self, connect: Connect) -> None:
        """Its status has no details: what the worker told before is not lost."""
        async with scripted(connect, [[STARTED, TEXT, USAGE], grpc.StatusCode.INTERNAL]) as (client, _):
            _, raised = await read(client.chat(ASK))
            assert isinstance(raised, WorkerFailed)
            assert (raised.usage, raised.reason) == (USAGE.usage, Reason.UNSPECIFIED)

    async def test_an_arm_that_is_newer_than_we(self, connect: Connect) -> None:
        async with scripted(connect, [[STARTED, Chunk(), TEXT, FINISH]]) as (client, _):
            assert (await client.complete(ASK)).text == "Hello"


async def until(done: Callable[[], bool], ask: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not done():
            await ask()


async def test_calls_are_spread_over_all_addresses_behind_a_name(connect: Connect) -> None:
    workers = {host: ScriptedWorker([]) for host in HOSTS}
    port = free_port(HOSTS)

    async def asked(times: int) -> Counter[str]:
        before = Counter({host: len(worker.calls) for host, worker in workers.items()})
        for _ in range(times):
            await client.models()
        return Counter({host: len(worker.calls) for host, worker in workers.items()}) - before

    async with NameServer(*HOSTS) as names, AsyncExitStack() as stack:
        target = names.target(port)
        async with AsyncExitStack() as others:
            await stack.enter_async_context(serving(workers[HOSTS[0]], f"{HOSTS[0]}:{port}"))
            for host in HOSTS[1:]:
                await others.enter_async_context(serving(workers[host], f"{host}:{port}"))
            client = await stack.enter_async_context(connected(connect, target, timeout=PATIENCE))
            await until(lambda: all(worker.calls for worker in workers.values()), client.models)
            assert await asked(12) == dict.fromkeys(HOSTS, 4)
        assert await asked(6) == {HOSTS[0]: 6}, "those that are gone are asked no more"

"""The server to clients of gRPC's own library, asynchronous and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from support.ports import free_port
from support.rpc import COUNT, ECHO, FAIL, HOLD, JOIN, TELL, Service, serving
from support.upstream import PATIENCE

from trestle.rpc.method import methods_of
from trestle.rpc.server import Server

MOST = 32 * 1024 * 1024
WIDE = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
Served: TypeAlias = tuple[str, Service, Server]


@pytest_asyncio.fixture
async def served() -> AsyncIterator[Served]:
    async with serving(max_message_bytes=MOST) as served:
        yield served


@pytest_asyncio.fixture
async def channel(served: Served) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(served[0], WIDE) as channel:
        yield channel


@pytest.mark.parametrize("compression", list(grpc.Compression))
async def test_messages_of_all_sizes(channel: Any, compression: grpc.Compression) -> None:
    for size in (0, 1, 16 * 1024, 65_530, 65_535, 1 << 20, 30 << 20):
        request = b"ab" * (size // 2)
        assert await channel.unary_unary(ECHO)(request, timeout=PATIENCE, compression=compression) == request


async def test_many_calls_at_once(channel: Any) -> None:
    requests = [bytes((i % 256,)) * (i * 37) for i in range(1000)]
    echo = channel.unary_unary(ECHO)
    assert await asyncio.gather(*(echo(each, timeout=PATIENCE) for each in requests)) == requests


async def test_a_long_stream(channel: Any) -> None:
    responses = [each async for each in channel.unary_stream(COUNT)(b"2000 3000", timeout=PATIENCE)]
    assert responses == [bytes(3000)] * 2000


async def test_a_large_stream(channel: Any) -> None:
    sizes = [len(each) async for each in channel.unary_stream(COUNT)(b"10 3000000", timeout=PATIENCE)]
    assert sizes == [3_000_000] * 10


async def test_a_stream_that_is_not_read_waits(served: Served, channel: Any) -> None:
    call = channel.unary_stream(COUNT)(b"1000 100000", timeout=PATIENCE)
    await call.read()
    async with asyncio.timeout(PATIENCE):
        await channel.unary_unary(ECHO)(b"", timeout=PATIENCE)
    assert served[1].written < 500
    call.cancel()
    await served[1].until(cancelled=1, running=0)


async def test_requests_that_stream(channel: Any) -> None:
    call = channel.stream_stream(JOIN)(timeout=PATIENCE)
    for size in (0, 1, 100_000, 3_000_000):
        await call.write(bytes(size))
        assert len(await call.read()) == size
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_metadata_and_statuses(served: Served, channel: Any) -> None:
    sent = (("x-a", "b"), ("x-b-bin", b"\0\xff"))
    call = channel.unary_unary(TELL)(b"", timeout=PATIENCE, metadata=sent)
    assert 0 < float(await call) <= PATIENCE
    assert set(sent) <= set(served[1].metadata)
    assert {("x-begun", "yes"), ("x-begun-bin", b"\0\1")} <= set(await call.initial_metadata())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(FAIL)(b"DATA_LOSS", timeout=PATIENCE)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "Grüße: 100% \n")
    assert {("x-name", "a"), ("x-bin", b"\0\xff")} <= set(caught.value.trailing_metadata() or ())


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("/test.Test/None", b"", grpc.StatusCode.UNIMPLEMENTED),
        (ECHO, bytes(MOST + 1), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (HOLD, b"", grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
async def test_failures(method: str, request_: bytes, code: grpc.StatusCode, served: Served, channel: Any) -> None:
    timeout = 0.2 if method == HOLD else PATIENCE
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(method)(request_, timeout=timeout)
    assert caught.value.code() is code
    await served[1].until(running=0)


async def test_a_client_that_comes_first() -> None:
    port = free_port()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", (("grpc.initial_reconnect_backoff_ms", 100),)) as channel:
        echo: Any = channel.unary_unary(ECHO)
        waiting = echo(b"a", timeout=PATIENCE, wait_for_ready=True)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(b"a", timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        server = Server()
        server.add(Service().methods())
        await server.listen("listen", f"127.0.0.1:{port}")
        assert await waiting == b"a"
        await server.stop(0)


async def test_connections_that_age_lose_no_call() -> None:
    async with (
        serving(max_age=0.05, max_age_grace=PATIENCE) as (address, _, _),
        grpc.aio.insecure_channel(address) as channel,
    ):
        echo: Any = channel.unary_unary(ECHO)
        for _ in range(20):
            requests = [bytes((i,)) * i * 100 for i in range(50)]
            assert await asyncio.gather(*(echo(each, timeout=PATIENCE) for each in requests)) == requests


async def test_health() -> None:
    checks = health.aio.HealthServicer()
    server = Server()
    server.add(methods_of(health_pb2_grpc.add_HealthServicer_to_server, checks, guarded=False))
    address = await server.listen("listen", "127.0.0.1:0")
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="a"), timeout=PATIENCE)
        seen = []
        for status in (None, 1, 2, 1):
            if status is not None:
                await checks.set("a", status)
            seen.append((await watch.read()).status)
        assert seen == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN, 1, 2, 1]
        assert (await stub.Check(health_pb2.HealthCheckRequest(service="a"), timeout=PATIENCE)).status == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="b"), timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        await server.stop(0.01)
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE


class TestSync:
    """Clients in threads, as most are."""

    @pytest.fixture
    def sync(self, served: Served) -> Iterator[Any]:
        with grpc.insecure_channel(served[0], WIDE) as channel:
            yield channel

    async def test_calls_of_many_threads(self, sync: Any) -> None:
        echo = sync.unary_unary(ECHO)

        def ask(i: int) -> bool:
            request = bytes((i % 256,)) * (i * 997)
            compression = grpc.Compression.Gzip if i % 3 == 0 else None
            return bool(echo(request, timeout=PATIENCE, compression=compression) == request)

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(8) as threads:
            assert all(await asyncio.gather(*(loop.run_in_executor(threads, ask, i) for i in range(300))))

    async def test_streams(self, sync: Any) -> None:
        def ask() -> tuple[int, int]:
            count = sum(1 for _ in sync.unary_stream(COUNT)(b"100 20000", timeout=PATIENCE))
            joined = sync.stream_stream(JOIN)((bytes(i * 100) for i in range(100)), timeout=PATIENCE)
            return count, sum(map(len, joined))

        assert await asyncio.to_thread(ask) == (100, 100 * 99 * 50)

    async def test_cancelling(self, served: Served, sync: Any) -> None:
        calls: list[Callable[..., Any]] = [sync.unary_unary(HOLD).future, sync.unary_stream(HOLD)]
        for i, ask in enumerate(calls):
            call = ask(b"", timeout=PATIENCE)
            await served[1].until(begun=i + 1)
            await asyncio.to_thread(call.cancel)
            await served[1].until(cancelled=i + 1, running=0)

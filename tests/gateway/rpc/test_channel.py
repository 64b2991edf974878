"""A channel: what it connects to, whom it asks, and how it says that nobody is there. Real sockets; beside scripted
servers those of gRPC itself and our own."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from support.channels import (
    PATH,
    Plain,
    ask,
    echo,
    failure,
    grpc_server,
    opened,
    outcome,
    own_server,
    patient,
    soon,
    until_it_answers,
)
from support.dns import HOSTS, NameServer
from support.http2_server import Http2Server
from support.ports import free_port
from support.upstream import PATIENCE

from trestle.errors import CallError
from trestle.rpc.method import Method
from trestle.rpc.server import Server

UNAVAILABLE, DEADLINE_EXCEEDED = 14, 4


SERVERS = [grpc_server, own_server]


@pytest.mark.parametrize("serve", SERVERS)
@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_calls_and_answers(serve: Callable[..., Any], size: int) -> None:
    data = random.Random(size).randbytes(size)
    options = {"grpc__max_receive_message_length": -1} if serve is grpc_server else {}
    async with serve(**options) as address, opened(address) as plain:
        for answers in await asyncio.gather(*(ask(plain, data) for _ in range(5))):
            assert answers == [data, data]


@pytest.mark.parametrize("serve", SERVERS)
async def test_a_hundred_megabytes(serve: Callable[..., Any]) -> None:
    data = bytes(30_000_000)
    most = 64 * 1024 * 1024
    options: dict[str, Any] = {"max_message_bytes": most} if serve is own_server else {}
    if serve is grpc_server:
        options = {"grpc__max_receive_message_length": -1, "grpc__max_send_message_length": -1}
    async with serve(**options) as address, opened(address, most=most) as plain:
        assert [len(each) for each in await ask(plain, data)] == [len(data)] * 2


@pytest.mark.parametrize("serve", SERVERS)
async def test_where_a_worker_may_be(serve: Callable[..., Any], tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/w.sock"
    async with serve(path), opened(path) as plain:
        assert await ask(plain) == [b"?", b"?"]
    async with serve() as address, opened(f"localhost:{address.rpartition(':')[2]}") as plain:
        assert await ask(plain) == [b"?", b"?"]
    async with serve("[::1]:0") as address:
        for target in (address, f"ipv6:{address}"):
            async with opened(target) as plain:
                assert await ask(plain) == [b"?", b"?"]


async def test_calls_wait_while_it_connects_and_fail_at_once_when_nobody_is_there() -> None:
    port = free_port()
    async with opened(f"127.0.0.1:{port}") as plain:
        for _ in range(3):
            status, words = await failure(plain.call())
            assert status == UNAVAILABLE
            assert words.startswith(f"127.0.0.1:{port}: ")
        async with own_server(f"127.0.0.1:{port}"):
            await until_it_answers(plain)
        async with own_server(f"127.0.0.1:{port}"):
            await until_it_answers(plain)


async def test_one_of_several_that_is_not_there_is_not_missed() -> None:
    async with own_server() as address, opened(f"ipv4:127.0.0.1:{free_port()},{address}") as plain:
        for _ in range(6):
            assert await ask(plain) == [b"?", b"?"]


async def test_what_is_said_of_a_deadline_that_passes_while_it_connects() -> None:
    async with Http2Server() as server, opened(f"ipv4:{server.address}") as plain:
        words = f"Deadline Exceeded while connecting to {server.address}"
        assert await failure(plain.call(timeout=0.05)) == (DEADLINE_EXCEEDED, words)
        call = plain.call()
        reading = asyncio.create_task(call.read())
        await server.bare()
        call.cancel()
        with pytest.raises(CallError, match=r"no more use"):
            await soon(reading)


async def test_addresses_come_and_go() -> None:
    """Who is gone from the name is asked no more, but ends what it has begun."""
    port = free_port(HOSTS)
    async with NameServer() as names, AsyncExitStack() as stack:
        servers = {
            host: await stack.enter_async_context(Http2Server(host=host, port=port)) for host in HOSTS[:2]
        }
        async with opened(names.target(port), resolve_interval=0.01) as plain:
            status, words = await failure(plain.call())
            assert status == UNAVAILABLE
            assert words.startswith("worker.test cannot be looked up: ")
            names.addresses = [HOSTS[0]]
            old = asyncio.create_task(patient(plain))
            first = await servers[HOSTS[0]].serving()
            asked = await first.request()
            names.addresses = [HOSTS[1]]
            plain.channel.look_again()
            second = await servers[HOSTS[1]].serving()
            new = asyncio.create_task(plain.call().read())
            other = await second.request()
            for peer, stream, task in ((second, other.stream, new), (first, asked.stream, old)):
                await peer.send(peer.headers(stream), peer.status(stream))
                assert await soon(task) is None
            await first.ended()


async def test_a_name_that_nobody_knows() -> None:
    for target in ("none.invalid:1", "a..b:1"):
        async with opened(target) as plain:
            status, words = await failure(plain.call())
            assert status == UNAVAILABLE
            assert words.startswith(f"{target[:-2]} cannot be looked up: ")


@pytest.mark.parametrize("balance", ["round_robin", "session", "load"])
async def test_several_are_asked_as_the_balance_says(balance: str) -> None:
    asked: Counter[str] = Counter()

    def counting(name: str) -> Method:
        async def run(request: bytes, context: Any) -> AsyncIterator[bytes]:
            asked[name] += 1
            yield request

        return Method(run, bytes, bytes)

    async with AsyncExitStack() as stack:
        addresses = []
        for name in "abc":
            server = Server()
            server.add({PATH: counting(name)})
            addresses.append(await server.listen("test", "127.0.0.1:0"))
            stack.push_async_callback(server.stop, 0)
        plain = await stack.enter_async_context(opened(f"ipv4:{','.join(addresses)}", balance=balance))
        async with asyncio.timeout(PATIENCE):
            while len(asked) < 3:
                await ask(plain)
        asked.clear()
        for _ in range(9):
            call = plain.call(b"?", metadata=(("x-session-id", "s"),))
            assert await soon(call.read()) is not None
            assert await soon(call.read()) is None
        assert sorted(asked.values()) == ([9] if balance == "session" else [3, 3, 3])


async def test_a_closed_channel_ends_all_calls_and_makes_no_more() -> None:
    async with Http2Server() as server:
        async with opened(server.address) as plain:
            open_ = asyncio.create_task(plain.call().read())
            peer = await server.serving()
            await peer.request()
        with pytest.raises(CallError, match=r"The connection to the worker broke"):
            await soon(open_)
        await peer.ended()
        words = "The gateway has closed its channel to the worker."
        assert await failure(plain.call()) == (UNAVAILABLE, words)
        async with opened(server.address) as plain:
            waiting = asyncio.create_task(plain.call().read())
            await server.bare()
        with pytest.raises(CallError, match=words):
            await soon(waiting)
        async with opened(server.address) as never:
            pass
        assert await failure(never.call()) == (UNAVAILABLE, words)
        assert server.count == 2


async def test_what_a_retired_replica_still_does_ends_with_the_channel() -> None:
    port = free_port(HOSTS)
    async with NameServer(HOSTS[0]) as names, Http2Server(host=HOSTS[0], port=port) as server:
        async with opened(names.target(port), resolve_interval=0.01) as plain:
            reading = asyncio.create_task(plain.call().read())
            peer = await server.serving()
            await peer.request()
            names.addresses = [HOSTS[1]]
            plain.channel.look_again()
            async with asyncio.timeout(PATIENCE):
                while (await failure(plain.call(timeout=0.05)))[0] != UNAVAILABLE:
                    pass
        with pytest.raises(CallError):
            await soon(reading)
        await peer.ended()


async def test_channels_that_come_and_go_leave_nothing() -> None:
    """Neither tasks nor sockets, in whatever state they were."""
    absent = f"127.0.0.1:{free_port()}"

    async def round_(address: str) -> None:
        async with opened(address) as plain:
            assert await ask(plain) == [b"?", b"?"]
        async with opened(f"ipv4:{absent},{address}", balance="load") as plain:
            assert await ask(plain) == [b"?", b"?"]
        async with opened(address) as plain:
            calls = [asyncio.create_task(plain.call().read()) for _ in range(3)]
            await asyncio.sleep(0)
        assert all(isinstance(each, CallError) for each in await asyncio.gather(*calls, return_exceptions=True))
        async with opened(absent) as plain:
            assert (await failure(plain.call()))[0] == UNAVAILABLE

    async with own_server() as address:
        await round_(address)
        await until(lambda: len(asyncio.all_tasks()) == 1)
        files = open_files()
        for _ in range(20):
            await round_(address)
        await until(lambda: len(asyncio.all_tasks()) == 1 and open_files() <= files)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_that_ends_while_it_connects(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Whatever turn of the loop it is: a connection may be there, of which its maker does not know yet."""

    async def run() -> None:
        wrong = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: wrong.append(context))
        async with own_server() as address:
            for turns in range(20):
                async with opened(address) as plain:
                    call = asyncio.create_task(plain.call().read())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                await asyncio.gather(call, return_exceptions=True)
                await until(lambda: len(asyncio.all_tasks()) == 1)
        assert not wrong

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_worker_that_restarts_again_and_again_loses_no_call_that_it_did_not_see() -> None:
    """Graceful stops: what was begun ends, what is asked meanwhile waits or is asked of the next one."""
    port = free_port()
    counts: Counter[str] = Counter()
    stopped = asyncio.Event()

    async def load(plain: Plain) -> None:
        while not stopped.is_set():
            failed = await outcome(plain)
            counts["good" if failed is None else "bad"] += 1
            if failed is not None:
                assert failed[0] == UNAVAILABLE
                assert failed[1].startswith("127.0.0.1:"), "never one that was begun"
                await asyncio.sleep(0.01)

    async with opened(f"127.0.0.1:{port}") as plain, asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(load(plain))
        for wanted in (50, 100, 150):
            server = Server()
            server.add({PATH: Method(echo, bytes, bytes)})
            await server.listen("test", f"127.0.0.1:{port}")

            await until(lambda: counts["good"] >= wanted)  # noqa: B023 (it is asked here alone)
            await server.stop(PATIENCE)
        stopped.set()
    assert counts["good"] >= 150


def test_it_closes_while_it_connects() -> None:
    """In whatever turn of the loop that is, of the one that the services run on."""

    async def close_after_turns() -> None:
        async with own_server() as address:
            for turns in range(30):
                async with opened(f"ipv4:{address}") as plain:
                    asked = asyncio.create_task(plain.call().read())
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    asked.cancel()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(close_after_turns())

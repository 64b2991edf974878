"""Several processes of one service: they share a port or stand side by side, live and die apart, and end together."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.chain import model
from support.client import Client, ask
from support.ports import free_port
from support.process import held_by
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, completion, text_stream

TWO = ("--processes", "2")


@asynccontextmanager
async def served(folder: Path, upstream: ScriptedUpstream, **settings: Any) -> AsyncIterator[Service]:
    upstreams = {"first": {"base_url": upstream.url, "retries": 0}}
    async with services.worker("openai", folder, upstreams) as worker:
        edge = {"auth": "open", "workers": {"openai": worker.address}, "models": [model("m", "first")], **settings}
        async with services.running("gateway", "gateway", *TWO, config={"gateway": edge}, folder=folder) as gateway:
            yield gateway


def children(service: Service) -> list[int]:
    """Its processes, in the order of their beginning."""
    pid = service.process.pid
    return sorted(int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def sockets(pid: int) -> int:
    found = 0
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(each).startswith("socket:")  # noqa: PTH115 (what it points to is no path)
        except FileNotFoundError:
            continue
    return found


async def other_line(service: Service) -> str:
    assert service.process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await service.process.stdout.readline()).decode().strip()


async def test_both_serve_on_one_port(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(tmp_path, upstream) as gateway, AsyncExitStack() as stack:
        before = [sockets(pid) for pid in children(gateway)]
        assert len(before) == 2
        upstream.will(*[Reply.json(completion())] * 40)
        for _ in range(40):  # connections of their own, that stay
            client = await stack.enter_async_context(Client(gateway.address))
            assert (await client.chat(ask("m"))).status == 200
        after = [sockets(pid) for pid in children(gateway)]
        assert all(now > then for now, then in zip(after, before, strict=True)), (before, after)


async def test_one_that_is_killed_comes_back_and_takes_nobody_along(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(tmp_path, upstream) as gateway, AsyncExitStack() as stack:
        streams = []
        gates = []
        for _ in range(16):
            gate = Gate()
            gates.append(gate)
            upstream.will(Reply.sse(*text_stream(["Hel", "lo."])[:2], gate, *text_stream(["Hel", "lo."])[2:]))
            client = await stack.enter_async_context(Client(gateway.address))
            stream = await stack.enter_async_context(client.open(ask("m")))
            await stream.event()
            streams.append(stream)
        first, second = children(gateway)
        gateway.new_log()
        os.kill(second, signal.SIGKILL)
        log = await gateway.logged("process 1 ended with signal 9")
        for gate in gates:
            gate.set()
        ended = await asyncio.gather(*(stream.rest() for stream in streams), return_exceptions=True)
        whole = [each for each in ended if not isinstance(each, BaseException) and each.done]
        assert 0 < len(whole) < 16, "the connections were spread over both"
        if "process 1 of 2 is " not in log:
            await gateway.logged("process 1 of 2 is ")
        upstream.will(*[Reply.json(completion())] * 20)
        assert children(gateway)[0] == first
        for _ in range(20):
            async with Client(gateway.address) as client:
                assert (await client.chat(ask("m"))).status == 200


async def test_they_end_together_and_let_answers_end(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(tmp_path, upstream) as gateway, AsyncExitStack() as stack:
        gate = Gate()
        streams = []
        for _ in range(16):
            upstream.will(Reply.sse(*text_stream(["Hi."])[:2], gate, *text_stream(["Hi."])[2:]))
            client = await stack.enter_async_context(Client(gateway.address))
            stream = await stack.enter_async_context(client.open(ask("m")))
            await stream.event()
            streams.append(stream)
        gateway.process.send_signal(signal.SIGTERM)
        log = await gateway.logged("stopping")
        while log.count("stopping") < 2:
            log += await gateway.logged("stopping")
        gate.set()
        ended = await asyncio.gather(*(stream.rest() for stream in streams))
        assert all(each.done for each in ended)
        assert await gateway.process.wait() == 0


async def test_without_their_supervisor_they_end(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(tmp_path, upstream) as gateway:
        ends = [os.pidfd_open(pid) for pid in children(gateway)]
        await gateway.kill()
        for end in ends:
            ready, _, _ = await asyncio.to_thread(select.select, [end], [], [], PATIENCE)
            assert ready, "it lives on"
            os.close(end)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"database": "sqlite:///t.db"}, r"gateway\.database: with 2 processes it needs gateway\.redis"),
        (
            {"auth": "keys", "keys": [{"name": "k", "sha256": "0" * 64, "limits": {"requests_per_minute": 1}}]},
            r"gateway\.keys\[0\]\.limits: 2 processes need gateway\.redis",
        ),
        ({"grpc": "127.0.0.1:0"}, r"gateway\.grpc: session events of 2 processes need gateway\.redis"),
        ({"max_requests": 1}, r"gateway\.max_requests: 1 cannot be shared among 2 processes"),
        ({"workers": {"w": {"address": "a:1", "max_calls": 1}}}, r"gateway\.workers\.w\.max_calls: 1 cannot be shared"),
        ({"timeot": 1}, r"gateway\.timeot"),
    ],
)
async def test_what_they_could_not_count_together_is_refused(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    edge = {"auth": "open", "workers": {"w": "127.0.0.1:1"}, **settings}
    with pytest.raises(AssertionError, match=words):
        async with services.running("gateway", "gateway", *TWO, config={"gateway": edge}, folder=tmp_path):
            pass


async def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        edge = {"auth": "open", "workers": {"w": "127.0.0.1:1"}}
        with pytest.raises(AssertionError, match=f"gateway.listen: cannot listen on {address}"):
            await services.start("gateway", "gateway", *TWO, config={"gateway": edge}, folder=tmp_path, listen=address)


async def test_sessions_are_not_told_by_halves(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, served(tmp_path, upstream) as gateway, Client(gateway.address) as client:
        answer = await client.ask("GET", "/v1/sessions/s/events")
        assert (answer.status, answer.error()["code"]) == (501, "sessions_unavailable")
        assert "gateway.redis" in answer.error()["message"]


async def test_workers_stand_side_by_side(tmp_path: Path) -> None:
    port = free_port(count=2)
    options: dict[str, Any] = {"config": {"worker": {}}, "folder": tmp_path, "listen": f"127.0.0.1:{port}"}
    async with services.running("worker", "worker", "echo", *TWO, **options) as worker:
        second = (await other_line(worker)).removeprefix("listening on ")
        assert [worker.address, second] == [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"]
        settings = {"workers": {"echo": f"ipv4:{worker.address},{second}"}}
        async with services.gateway(settings, tmp_path) as gateway, Client(gateway.address) as client:
            for _ in range(4):
                assert (await client.chat(ask("echo"))).status == 200
            worker.new_log()
            os.kill(children(worker)[0], signal.SIGKILL)
            log = await worker.logged("process 0 ended with signal 9")
            for _ in range(8):  # the other one serves
                assert (await client.chat(ask("echo"))).status == 200
            assert "process 0 of 2 is " in log or await worker.logged("process 0 of 2 is ")
        assert held_by(worker).sockets < 8, "who supervises serves nobody"

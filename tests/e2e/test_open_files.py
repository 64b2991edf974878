"""A process that may open few files: it takes what it may, turns the rest away in good order, and goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
from support import services
from support.chain import model
from support.client import Client, ask
from support.upstream import Gate, Reply, ScriptedUpstream, completion, text_stream

BUSY = """
import resource, socket, sys, time
from trestle import scrape
address = scrape.serve("metrics", "127.0.0.1:0", scrape.registry())
host, _, port = address.rpartition(":")
waiting = socket.socket()
taken = [socket.socket() for _ in range(3)]
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1].fileno() + 1, hard))
waiting.connect((host, int(port)))
waiting.sendall(b"GET /metrics HTTP/1.0\\r\\n\\r\\n")
began, used = time.monotonic(), time.process_time()
time.sleep(1)
assert time.process_time() - used < 0.3 * (time.monotonic() - began), "it is busy accepting"
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
waiting.settimeout(30)
assert waiting.recv(12) == b"HTTP/1.0 200"
"""


async def test_it_allows_itself_what_it_may(tmp_path: Path) -> None:
    async with services.worker("echo", tmp_path) as worker, AsyncExitStack() as stack:
        settings = {"workers": {"echo": worker.address}, "auth": "open", "max_connections": 200}
        options = {"config": {"gateway": settings}, "folder": tmp_path, "files": (64, 1024)}
        gateway = await stack.enter_async_context(services.running("gateway", "gateway", **options))
        for _ in range(100):  # connections that stay
            client = await stack.enter_async_context(Client(gateway.address))
            assert (await client.chat(ask("echo"))).status == 200


async def test_a_gateway_turns_away_whom_it_has_no_file_for(tmp_path: Path) -> None:
    async with services.worker("echo", tmp_path) as worker, AsyncExitStack() as stack:
        settings = {"workers": {"echo": worker.address}, "auth": "open", "metrics": services.FREE_PORT}
        options = {"config": {"gateway": settings}, "folder": tmp_path, "files": (64, 64)}
        gateway = await stack.enter_async_context(services.running("gateway", "gateway", **options))
        metrics = await gateway.other_address("metrics")
        clients = [await stack.enter_async_context(Client(gateway.address)) for _ in range(36)]
        answers = [await client.chat(ask("echo")) for client in clients]
        assert [answer.status for answer in answers] == [200] * 32 + [503] * 4
        assert (answers[-1].error()["code"], answers[-1].headers["retry-after"]) == ("overloaded", "1")
        assert "there are 32 connections, and no more may be" in gateway.new_log()
        async with aiohttp.ClientSession() as session, session.get(f"http://{metrics}/metrics") as told:
            assert told.status == 200
        assert (await clients[0].chat(ask("echo"))).status == 200


async def test_a_worker_turns_away_whom_it_has_no_file_for(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream, AsyncExitStack() as stack:
        gate = Gate()
        upstream.always = lambda _: Reply.sse(*text_stream(["Hel", "lo."])[:2], gate, *text_stream(["Hel", "lo."])[2:])
        settings = {"metrics": services.FREE_PORT, "openai": {"upstreams": {"first": {"base_url": upstream.url}}}}
        options = {"config": {"worker": settings}, "folder": tmp_path, "files": (64, 64)}
        worker = await stack.enter_async_context(services.running("worker", "worker", "openai", **options))
        metrics = await worker.other_address("metrics")
        edge = {"workers": {"openai": worker.address}, "models": [model("m", "first")]}
        gateway = await stack.enter_async_context(services.gateway(edge, tmp_path))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(f"http://{gateway.address}", connector=aiohttp.TCPConnector(limit=0))
        )
        body = {**ask("m"), "stream": True}
        begun = await asyncio.gather(*(session.post("/v1/chat/completions", json=body) for _ in range(48)))
        assert Counter(answer.status for answer in begun) == {200: 32, 503: 16}
        refused = next(answer for answer in begun if answer.status == 503)
        assert ((await refused.json())["error"]["code"], refused.headers["retry-after"]) == ("overloaded", "1")
        async with session.get(f"http://{metrics}/metrics") as told:
            assert told.status == 200
        async with services.gateway(edge, tmp_path, "another") as another, Client(another.address) as client:
            assert (await client.chat(ask("m"))).error()["code"] == "overloaded"
            gate.set()
            for answer in begun:
                if answer.status == 200:
                    assert (await answer.read()).endswith(b"data: [DONE]\n\n")
            upstream.always = lambda _: Reply.json(completion())
            assert (await client.chat(ask("m"))).status == 200


async def test_who_waits_to_scrape_costs_nothing_meanwhile() -> None:
    command = (sys.executable, "-c", BUSY)
    done = await asyncio.to_thread(
        lambda: subprocess.run(command, cwd=services.ROOT, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stderr

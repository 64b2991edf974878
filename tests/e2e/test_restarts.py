"""Processes that end and come back while requests run: asked to, one after the other, and killed."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import openai
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import services
from support.client import Client, ask
from support.process import callers_of
from support.services import Service
from support.upstream import PATIENCE

SLOW = "echo?tokens=40&delay_ms=10"
WORDS = "one two three four"
DRAIN = {"drain_delay": 0.3, "drain_timeout": 30}


@asynccontextmanager
async def echo(folder: Path, listen: str = services.FREE_PORT) -> AsyncIterator[Service]:
    config = {"worker": DRAIN}
    async with services.running("worker-echo", "worker", "echo", config=config, folder=folder, listen=listen) as worker:
        yield worker


async def started(folder: Path, family: str, listen: str, config: dict[str, Any]) -> Service:
    command = ("gateway",) if family == "gateway" else ("worker", family)
    return await services.start(family, *command, config=config, folder=folder, listen=listen)


def two_folders(folder: Path) -> list[Path]:
    """For the logs of two of a kind."""
    folders = [folder / name for name in ("one", "two")]
    for each in folders:
        each.mkdir()
    return folders


@contextmanager
def reserved() -> Iterator[str]:
    """An address whose port stays ours while nobody listens there."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def test_a_body_on_its_way_is_read_to_its_end(tmp_path: Path) -> None:
    """Though the gateway takes no new requests, and its HTTP library would hear nothing more."""
    async with echo(tmp_path) as worker:
        config = {"gateway": {"auth": "open", "workers": {"echo": worker.address}}}
        gateway = await services.start("gateway", "gateway", config=config, folder=tmp_path)
        host, _, port = gateway.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        body = json.dumps(ask("echo")).encode()
        asked = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        async with asyncio.timeout(PATIENCE):
            writer.write(f"{asked}expect: 100-continue\r\n\r\n".encode())
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            gateway.process.send_signal(signal.SIGTERM)
            await gateway.logged("no new requests")
            writer.write(body[:10])
            await writer.drain()
            writer.write(body[10:])
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert await gateway.stop() == 0


class Load:
    """Clients that ask again and again until `stop`; what came of it is counted by its outcome."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._stopped = False
        self._counted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def run(self, count: int, once: Callable[[], Coroutine[Any, Any, str]]) -> None:
        async def client() -> None:
            while not self._stopped:
                self.seen[await once()] += 1
                self._counted.set()

        self._tasks += [asyncio.create_task(client()) for _ in range(count)]

    async def more(self, count: int = 20) -> None:
        """Returns when so many more have been counted."""
        wanted = self.seen.total() + count
        async with asyncio.timeout(PATIENCE):
            while self.seen.total() < wanted:
                self._counted.clear()
                await self._counted.wait()

    async def stop(self) -> Counter[str]:
        self._stopped = True
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*self._tasks)
        return self.seen


def asking(sdk: openai.AsyncOpenAI) -> Callable[[], Coroutine[Any, Any, str]]:
    """A stream by OpenAI's SDK with its usual retries."""

    async def once() -> str:
        try:
            stream = await sdk.chat.completions.create(
                model=SLOW, messages=[{"role": "user", "content": WORDS}], stream=True
            )
            tokens = sum([len(part.choices[0].delta.content or "") > 0 async for part in stream if part.choices])
        except openai.OpenAIError as error:
            return f"{type(error).__name__}: {error}"
        return f"{tokens} tokens"

    return once


def bare(address: str) -> Callable[[], Coroutine[Any, Any, str]]:
    """A short answer on a connection of its own, without any retry."""

    async def once() -> str:
        try:
            async with Client(address) as client:
                answer = await client.chat(ask("echo"))
        except aiohttp.ClientError as error:
            return type(error).__name__
        return str(answer.status)

    return once


def sdk_for(address: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none", timeout=PATIENCE)


async def test_two_workers_behind_one_name_restart_in_turn(tmp_path: Path) -> None:
    config, folders = {"worker": DRAIN}, two_folders(tmp_path)
    workers = [await started(folders[n], "echo", services.FREE_PORT, config) for n in range(2)]
    both = "ipv4:" + ",".join(worker.address for worker in workers)
    async with services.gateway({"workers": {"echo": both}}, tmp_path) as gateway:
        async with sdk_for(gateway.address) as sdk:
            load = Load()
            load.run(6, asking(sdk))
            load.run(2, bare(gateway.address))
            await load.more()
            for n, worker in enumerate(workers):
                assert await worker.stop() == 0
                await load.more()
                workers[n] = await started(folders[n], "echo", worker.address, config)
                # A worker that is back is found within a second; only then may the other one go.
                async with asyncio.timeout(PATIENCE):
                    while not callers_of(workers[n]):
                        await load.more(1)
                await load.more()
            seen = await load.stop()
        for worker in workers:
            assert await worker.stop() == 0
            assert "Traceback" not in worker.new_log()
    assert set(seen) == {"40 tokens", "200"}, seen


async def test_two_gateways_on_one_port_restart_in_turn(tmp_path: Path) -> None:
    with reserved() as address:
        async with echo(tmp_path) as worker:
            config = {
                "gateway": {"auth": "open", "workers": {"echo": worker.address}, "reuse_port": True, **DRAIN}
            }
            folders = two_folders(tmp_path)
            gateways = [await started(folders[n], "gateway", address, config) for n in range(2)]
            async with sdk_for(address) as sdk:
                load = Load()
                load.run(6, asking(sdk))
                load.run(2, bare(address))
                await load.more()
                for n, gateway in enumerate(gateways):
                    assert await gateway.stop() == 0
                    await load.more()
                    gateways[n] = await started(folders[n], "gateway", address, config)
                    await load.more()
                seen = await load.stop()
            for gateway in gateways:
                assert await gateway.stop() == 0
                assert "Traceback" not in gateway.new_log()
    # Between the last look at a listening socket's queue and its close a connection may come in: the kernel resets it.
    # Who has no retries sees that; it is rare, so that no more than a few are let pass here.
    resets = sum(seen.pop(name, 0) for name in ("ServerDisconnectedError", "ClientOSError", "ClientConnectorError"))
    assert set(seen) == {"40 tokens", "200"}, seen
    assert resets <= 4


async def test_a_worker_that_is_killed(tmp_path: Path) -> None:
    """Its streams get an error event, the next requests go elsewhere at once, and it is found when it is back."""
    config, folders = {"worker": DRAIN}, two_folders(tmp_path)
    workers = [await started(folders[n], "echo", services.FREE_PORT, config) for n in range(2)]
    models = [{"name": "m", "targets": [{"worker": f"w{n}", "model": "echo?tokens=200&delay_ms=20"} for n in range(2)]}]
    models.append({"name": "first", "targets": [{"worker": "w0", "model": "echo"}]})
    settings = {"workers": {f"w{n}": worker.address for n, worker in enumerate(workers)}, "models": models}
    async with services.gateway(settings, tmp_path) as gateway, Client(gateway.address) as client:
        async with client.open(ask("m")) as stream:
            await stream.event()
            workers[0].process.kill()
            seen = await stream.rest()
            assert seen.error is not None
            assert not seen.done
            for _ in range(3):
                async with client.open(ask("m")) as other:
                    await other.event()
                    assert other.seen.error is None
                    other.hang_up()
        await workers[0].process.wait()
        assert (await client.chat(ask("first"))).status == 503
        workers[0] = await started(folders[0], "echo", workers[0].address, config)
        async with asyncio.timeout(PATIENCE):
            while (await client.chat(ask("first"))).status != 200:
                pass
    for worker in workers:
        assert await worker.stop() == 0


async def test_a_worker_that_stops_waits_for_its_calls_and_for_nobody_else(tmp_path: Path) -> None:
    """Somebody who watches its health never ends by himself."""
    async with echo(tmp_path) as worker, grpc.aio.insecure_channel(worker.address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = aiter(stub.Watch(health_pb2.HealthCheckRequest()))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        async with services.gateway({"workers": {"echo": worker.address}}, tmp_path) as gateway:
            async with Client(gateway.address) as client, client.open(ask("echo?tokens=20&delay_ms=20")) as stream:
                await stream.event()
                async with asyncio.timeout(DRAIN["drain_timeout"] / 2):
                    assert await worker.stop() == 0
                    assert (await stream.rest()).done
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING

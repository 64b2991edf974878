"""What Prometheus finds."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import services
from support.chain import model
from support.client import Client, ask
from support.ports import free_port
from support.services import Service
from support.upstream import PATIENCE, USAGE, Gate, Reply, ScriptedUpstream, completion, text_stream

Samples = dict[tuple[str, ...], float]


@dataclass
class Served:
    gateway: Service
    upstream: ScriptedUpstream
    gateway_metrics: str
    worker_metrics: str


async def scraped(address: str) -> Samples:
    """By name and labels' values, in the order of the labels' names."""
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
        assert response.status == 200
        families = text_string_to_metric_families(await response.text())
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


async def until(address: str, name: tuple[str, ...], value: float) -> Samples:
    async with asyncio.timeout(PATIENCE):
        while (found := await scraped(address)).get(name) != value:
            pass
    return found


async def second_line(service: Service) -> str:
    assert service.process.stdout is not None
    line = (await service.process.stdout.readline()).decode()
    assert line.startswith("metrics listening on ")
    return line.split()[-1]


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Served]:
    async with ScriptedUpstream() as upstream:
        upstreams = {name: {"base_url": upstream.url, "retries": 0} for name in ("first", "second")}
        config = {"worker": {"metrics": services.FREE_PORT, "openai": {"upstreams": upstreams}}}
        running = services.running("worker", "worker", "openai", config=config, folder=folder)
        async with running as worker:
            settings = {
                "workers": {"openai": worker.address},
                "models": [model("scripted", "first"), model("pair", "first", "second")],
                "metrics": services.FREE_PORT,
            }
            async with services.gateway(settings, folder) as gateway:
                yield Served(gateway, upstream, await second_line(gateway), await second_line(worker))


async def test_every_request_is_counted_once(tmp_path: Path) -> None:
    async with served(tmp_path) as it, Client(it.gateway.address) as client:
        it.upstream.will(Reply.json(completion()), Reply.json({"error": {"message": "No."}}, 503))
        it.upstream.will(Reply.json(completion()))
        assert (await client.chat(ask("scripted"))).status == 200
        assert (await client.chat(ask("pair"))).headers["x-trestle-attempts"] == "2"
        assert (await client.chat(ask("anything at all"))).status == 404
        it.upstream.will(Reply.sse(*text_stream(["Hi."])[:2], Gate()))
        async with client.open(ask("scripted")) as stream:
            await stream.event()
            during = await scraped(it.gateway_metrics)
            assert during[("trestle_open_streams",)] == 1
            stream.hang_up()
        cancelled = ("trestle_requests_total", "chat", "scripted", "cancelled", "200")
        found = await until(it.gateway_metrics, cancelled, 1)
        assert found[("trestle_requests_total", "chat", "scripted", "done", "200")] == 1
        assert found[("trestle_requests_total", "chat", "pair", "done", "200")] == 1
        assert found[("trestle_requests_total", "chat", "other", "refused", "404")] == 1
        assert found[("trestle_attempts_total", "UPSTREAM_OVERLOADED", "first", "openai")] == 1
        assert found[("trestle_attempts_total", "", "second", "openai")] == 1
        assert found[("trestle_tokens_total", "pair", "input")] == USAGE["prompt_tokens"]
        assert found[("trestle_request_seconds_count", "chat", "scripted")] == 2
        assert found[("trestle_first_token_seconds_count", "scripted")] == 1
        assert found[("trestle_cancel_seconds_count",)] == 1
        assert found[("trestle_open_streams",)] == 0
        assert found[("trestle_queue", "openai")] == 0
        assert found[("trestle_config_refused",)] == 0
        worker = await until(
            it.worker_metrics, ("trestle_worker_calls_total", "openai", "Chat", "CANCELLED", "first"), 1
        )
        assert worker[("trestle_worker_calls_total", "openai", "Chat", "OK", "second")] == 1
        assert worker[("trestle_worker_first_token_seconds_count", "openai", "first")] == 1
        assert worker[("trestle_worker_calls_total", "openai", "Chat", "UNAVAILABLE", "first")] == 1
        assert worker[("trestle_worker_tokens_total", "openai", "input", "second")] == USAGE["prompt_tokens"]


async def test_who_waits_is_counted(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        narrow = {"base_url": upstream.url, "max_calls": 1}
        config = {"worker": {"metrics": services.FREE_PORT, "openai": {"upstreams": {"narrow": narrow}}}}
        async with services.running("worker", "worker", "openai", config=config, folder=tmp_path) as worker:
            metrics = await second_line(worker)
            one = {"address": worker.address, "max_calls": 2}
            settings = {"workers": {"w": one}, "models": [{"name": "m", "targets": [{"worker": "w", "model": "m"}]}]}
            async with services.gateway({**settings, "metrics": services.FREE_PORT}, tmp_path) as gateway:
                gateway_metrics = await second_line(gateway)
                gate = Gate()
                upstream.will(Reply.sse(gate, *text_stream(["Hi."])), *[Reply.json(completion())] * 2)
                async with Client(gateway.address) as client, asyncio.TaskGroup() as group:
                    group.create_task(client.stream(ask("m")))
                    await upstream.request()
                    for _ in range(2):  # one for the upstream's queue, one for the worker's
                        group.create_task(client.chat(ask("m")))
                    await until(metrics, ("trestle_queue", "narrow"), 1)
                    await until(gateway_metrics, ("trestle_queue", "w"), 1)
                    gate.set()
                await until(metrics, ("trestle_queue", "narrow"), 0)
                await until(gateway_metrics, ("trestle_queue", "w"), 0)


async def test_a_call_that_a_full_worker_turns_away_is_counted(tmp_path: Path) -> None:
    options = {"metrics": services.FREE_PORT, "max_calls": 1}
    async with services.worker("echo", tmp_path, settings=options) as worker:
        metrics = await second_line(worker)
        async with (
            services.gateway({"workers": {"w": worker.address}}, tmp_path) as gateway,
            Client(gateway.address) as client,
            client.open(ask("echo?fault=stall&after=1")) as stream,
        ):
            await stream.event()
            assert (await client.chat(ask("echo"))).error()["code"] == "overloaded"
            await until(metrics, ("trestle_worker_calls_total", "echo", "Chat", "UNAVAILABLE", ""), 1)
            stream.hang_up()


@contextmanager
def prometheus(folder: Path, targets: list[str]) -> Iterator[str]:
    """A real one that looks at these, and where it answers."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus is installed (Debian: apt install prometheus)")
    address = f"127.0.0.1:{free_port()}"
    listed = ", ".join(f'"{target}"' for target in targets)
    scrape = f"{{job_name: trestle, scrape_interval: 200ms, static_configs: [{{targets: [{listed}]}}]}}"
    (folder / "prometheus.yml").write_text(f"scrape_configs: [{scrape}]\n")
    options = ["--config.file=prometheus.yml", f"--web.listen-address={address}", "--storage.tsdb.path=data"]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen([program, *options], cwd=folder, stdout=log, stderr=log)
    try:
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE)


async def test_a_real_prometheus_reads_them(tmp_path: Path) -> None:
    async with served(tmp_path) as it, Client(it.gateway.address) as client:
        with prometheus(tmp_path, [it.gateway_metrics, it.worker_metrics]) as address:
            it.upstream.will(Reply.json(completion()))
            assert (await client.chat(ask("scripted"))).status == 200
            query = "sum(trestle_requests_total) + sum(trestle_worker_calls_total{method='Chat'})"
            found: list[str] = []
            async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
                while found != ["2"]:
                    try:
                        async with session.get(f"http://{address}/api/v1/query", params={"query": query}) as response:
                            answer = await response.json() if response.status == 200 else {"data": {"result": []}}
                    except aiohttp.ClientConnectorError:
                        continue
                    found = [each["value"][1] for each in answer["data"]["result"]]

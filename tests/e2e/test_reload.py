"""The configuration read anew while the services serve."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from support import services
from support.client import Client, ask
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, completion, text_stream


class House:
    """A gateway `served`, its client, and its settings, which `write` changes; the worker `w` has the upstream."""

    def __init__(
        self, served: Service, client: Client, upstream: ScriptedUpstream, file: Path, worker: Service
    ) -> None:
        self.served = served
        self.client = client
        self.upstream = upstream
        self.worker = worker
        self._file = file

    def settings(self, **changed: Any) -> dict[str, Any]:
        """Of the start, but for these."""
        return {"auth": "open", "workers": {"w": self.worker.address}, "models": [alias("old")], **changed}

    def write(self, settings: dict[str, Any]) -> None:
        """As an editor does: a new file in the place of the old."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps({"gateway": settings}), encoding="utf-8")
        new.replace(self._file)

    async def models(self) -> list[str]:
        listed = (await self.client.ask("GET", "/v1/models")).json["data"]
        return [model["id"] for model in listed]


def alias(name: str, worker: str = "w") -> dict[str, Any]:
    return {"name": name, "targets": [{"worker": worker, "model": "m"}]}


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    async with ScriptedUpstream() as upstream:
        upstreams = {"u": {"base_url": upstream.url, "models": ["listed"], "retries": 0}}
        async with services.worker("openai", folder, upstreams) as worker:
            settings = {"workers": {"w": worker.address}, "models": [alias("old")]}
            async with services.gateway(settings, folder) as served, Client(served.address) as client:
                yield House(served, client, upstream, folder / "gateway.yaml", worker)


async def test_new_models_are_served_and_an_open_stream_goes_on(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        gate = Gate()
        role, one, *rest = text_stream(["one", " two"])
        it.upstream.will(Reply.sse(role, one, gate, *rest))
        async with it.client.open(ask("old")) as stream:
            await stream.event()
            it.write(it.settings(models=[alias("new")]))
            await it.served.logged("read anew")
            assert await it.models() == ["new"]
            gone = await it.client.chat(ask("old"))
            assert (gone.status, gone.error()["code"]) == (404, "model_not_found")
            gate.set()
            seen = await stream.rest()
        assert (seen.done, seen.text()) == (True, "one two")
        it.upstream.will(Reply.json(completion("Hi.")))
        assert (await it.client.chat(ask("new"))).status == 200


async def test_a_worker_that_is_taken_out_finishes_what_it_has_begun(tmp_path: Path) -> None:
    async with house(tmp_path) as it, services.worker("echo", tmp_path) as echo:
        gate = Gate()
        role, one, *rest = text_stream(["one", " two"])
        it.upstream.will(Reply.sse(role, one, gate, *rest))
        async with it.client.open(ask("old")) as stream:
            await stream.event()
            it.write(it.settings(workers={"e": echo.address}, models=[]))
            await it.served.logged("read anew")
            assert "echo" in await it.models()  # the new worker's own list, known before anybody asks
            gate.set()
            assert (await stream.rest()).text() == "one two"


async def test_a_file_that_is_wrong_is_refused_and_the_next_one_counts(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        for wrong, word in (
            (it.settings(modells=[]), "gateway.modells: is not a known key"),
            (it.settings(models=[alias("x", "nobody")]), "gateway.models[0].targets[0].worker"),
            (it.settings(auth="keys", keys=[{"name": "k", "key_env": "NOT_SET_ANYWHERE"}]), "NOT_SET_ANYWHERE"),
        ):
            it.write(wrong)
            assert word in await it.served.logged("refused")
            assert await it.models() == ["old"]
        it.write(it.settings(models=[alias("right")]))
        await it.served.logged("read anew")
        assert await it.models() == ["right"]


async def test_keys_change(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of `test`
        it.write(it.settings(auth="keys", keys=[{"name": "k", "sha256": digest}]))
        await it.served.logged("read anew")
        assert (await it.client.ask("GET", "/v1/models")).status == 401
        assert (await it.client.ask("GET", "/v1/models", x_api_key="test")).status == 200


async def test_a_hangup_reads_it_anew(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.served.process.send_signal(signal.SIGHUP)
        await it.served.logged("read anew")
        assert await it.models() == ["old"]


async def test_what_needs_a_restart_is_said(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.write(it.settings(max_header_bytes=2048, models=[alias("new")]))
        logged = await it.served.logged("read anew")
        assert "gateway.max_header_bytes: the new value counts from the next start" in logged
        assert await it.models() == ["new"]


async def test_a_mounted_config_map(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder, and the file's own name stays a link through it."""
    async with services.worker("echo", tmp_path) as echo:
        mount = tmp_path / "mount"
        mount.mkdir()
        config: dict[str, Any] = {"auth": "open", "workers": {"e": echo.address}}

        def put(version: str, models: list[dict[str, Any]]) -> None:
            folder = mount / version
            folder.mkdir()
            (folder / "gateway.yaml").write_text(json.dumps({"gateway": {**config, "models": models}}))
            link = mount / "..tmp"
            link.symlink_to(version)
            link.replace(mount / "..data")

        put("..1", [])
        (mount / "gateway.yaml").symlink_to("..data/gateway.yaml")
        listening = await asyncio.create_subprocess_exec(
            *services.run("gateway"),
            *("--config", str(mount / "gateway.yaml"), "--listen", services.FREE_PORT),
            cwd=services.ROOT,
            stdout=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )
        try:
            assert listening.stdout is not None
            address = (await listening.stdout.readline()).decode().split()[-1]
            async with Client(address) as client:
                put("..2", [alias("swapped", "e")])

                listed: list[str] = []
                async with asyncio.timeout(PATIENCE):
                    while listed != ["swapped"]:
                        listed = [each["id"] for each in (await client.ask("GET", "/v1/models")).json["data"]]
        finally:
            listening.terminate()
            async with asyncio.timeout(PATIENCE):
                assert await listening.wait() == 0


async def test_how_lines_are_written_changes_too(tmp_path: Path) -> None:
    async with house(tmp_path) as it:
        it.write(it.settings(log_format="json", access_log=True))
        await it.served.logged('"event":"the configuration has been read anew"')
        it.upstream.will(Reply.json(completion()))
        assert (await it.client.chat(ask("old"), x_request_id="r1")).status == 200
        (line,) = (await it.served.logged('"event":"request"')).splitlines()
        assert json.loads(line)["request_id"] == "r1"
        it.write(it.settings(log_level="warning", access_log=True))
        async with asyncio.timeout(PATIENCE):
            while True:
                it.upstream.will(Reply.json(completion()))
                assert (await it.client.chat(ask("old"))).status == 200
                if not it.served.new_log():
                    break

"""`trestle doctor`: what is broken is found and named, and what helps is said."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import services
from support.certificates import Authority
from support.redis import redis_server
from support.services import ROOT
from support.upstream import Reply, ScriptedUpstream

from trestle.findings import Finding, certificate

SECRET = "sk-that-nobody-is-to-read"


async def doctor(folder: Path, config: dict[str, Any], *options: str, **environment: str) -> dict[str, Finding]:
    """Its findings by what they are about, and under `status` its own."""
    file = folder / "doctor.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    few_files = ("prlimit", "--nofile=1024:1024")
    command = (*few_files, sys.executable, "-m", "trestle", "doctor", "--config", str(file), "--json", *options)
    options_of: dict[str, Any] = {"cwd": ROOT, "env": {**os.environ, **environment}, "capture_output": True}
    done = await asyncio.to_thread(lambda: subprocess.run(command, text=True, check=False, **options_of))
    assert done.stderr == ""
    assert SECRET not in done.stdout
    found = [msgspec.json.decode(line, type=Finding) for line in done.stdout.splitlines()]
    assert done.returncode == (1 if any(each.status == "fail" for each in found) else 0)
    assert all(bool(each.todo) == (each.status != "ok") for each in found)
    return {each.what: each for each in found}


async def test_what_is_well(tmp_path: Path) -> None:
    async with services.worker("echo", tmp_path) as worker:
        gateway = {"auth": "open", "listen": "127.0.0.1:0", "workers": {"echo": worker.address}, "max_connections": 10}
        found = await doctor(tmp_path, {"gateway": {**gateway, "database": f"sqlite:///{tmp_path}/t.db"}})
    assert {each.status for each in found.values()} == {"ok"}
    assert found["gateway.workers.echo"].said == f"{worker.address} serves 1 model: echo"


async def test_a_configuration_that_is_wrong(tmp_path: Path) -> None:
    found = await doctor(tmp_path, {"gateway": {"auth": "open", "workers": {"w": "127.0.0.1:1"}, "timeot": 1}})
    assert found["gateway"].status == "fail"
    assert "gateway.timeot" in found["gateway"].said


async def test_what_cannot_be_reached(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = {
            "auth": "open",
            "listen": f"127.0.0.1:{taken.getsockname()[1]}",
            "workers": {"w": "127.0.0.1:1"},
            "redis": "redis://127.0.0.1:1",
            "database": "postgresql://nobody@127.0.0.1:1/none",
            "ledger": {"outbox": "/proc/outbox"},
            "max_connections": 10_000_000,
        }
        upstreams = {
            "gone": {"base_url": "http://127.0.0.1:1/v1"},
            "nameless": {"base_url": "https://none.invalid/v1"},
            "plain": {"base_url": f"https://127.0.0.1:{taken.getsockname()[1]}/v1"},
        }
        found = await doctor(tmp_path, {"gateway": gateway, "worker": {"openai": {"upstreams": upstreams}}})
    failing = {what for what, each in found.items() if each.status == "fail"}
    assert failing == {
        "gateway.workers.w",
        "gateway.redis",
        "gateway.database",
        "gateway.ledger.outbox",
        *(f"worker.openai.upstreams.{name}.base_url" for name in upstreams),
    }
    assert found["gateway.listen"].status == found["gateway.max_connections"].status == "warn"
    assert "name is not known" in found["worker.openai.upstreams.nameless.base_url"].said


async def test_credentials(tmp_path: Path) -> None:
    async with ScriptedUpstream() as upstream:
        one = {"base_url": upstream.url, "credential_env": "DOCTORS_KEY"}
        gateway = {"auth": "open", "listen": "127.0.0.1:0", "workers": {"openai": "127.0.0.1:1"}}
        config: dict[str, Any] = {"worker": {"openai": {"upstreams": {"one": one}}}, "gateway": gateway}
        unset = await doctor(tmp_path, config, DOCTORS_KEY="")
        assert (unset["worker.openai"].status, unset["worker.openai"].said) == ("warn", "DOCTORS_KEY is not set")
        not_served = unset["gateway.workers.openai"]
        assert (not_served.status, not_served.said) == ("warn", "is not served")
        assert not_served.todo.startswith("export DOCTORS_KEY=")
        del config["gateway"]
        assert (await doctor(tmp_path, config, DOCTORS_KEY=SECRET)).keys() >= {"worker.openai.upstreams.one.base_url"}
        assert upstream.requests == []
        upstream.will(Reply.json({"error": {"message": f"{SECRET} is no key of ours."}}, 401))
        refused = await doctor(tmp_path, config, "--ask", DOCTORS_KEY=SECRET)
        assert refused["worker.openai.upstreams.one"].status == "fail"
        assert "DOCTORS_KEY" in refused["worker.openai.upstreams.one"].todo
        upstream.will(Reply.json({"object": "list", "data": [{"id": "m", "object": "model"}]}))
        taken = await doctor(tmp_path, config, "--ask", DOCTORS_KEY=SECRET)
        assert taken["worker.openai.upstreams.one"].said == "lists 1 model"


async def test_a_worker_whose_upstream_is_away_is_not_blamed_for_it(tmp_path: Path) -> None:
    async with services.worker("openai", tmp_path, {"gone": {"base_url": "http://127.0.0.1:1"}}) as worker:
        gateway = {"auth": "open", "listen": "127.0.0.1:0", "workers": {"w": worker.address}, "max_connections": 10}
        found = (await doctor(tmp_path, {"gateway": gateway}))["gateway.workers.w"]
    assert found.status == "fail"
    assert found.said.startswith(f"{worker.address} answers, but cannot list its upstream's models: ")
    assert "worker.FAMILY.upstreams" in found.todo


async def test_a_database_and_a_redis_that_answer(tmp_path: Path) -> None:
    async with services.worker("echo", tmp_path) as worker:
        database = f"sqlite:///{tmp_path}/t.db"
        settings = {"workers": {"echo": worker.address}, "database": database}
        async with services.gateway(settings, tmp_path):
            with redis_server(tmp_path) as redis:
                shared = {"auth": "open", "listen": "127.0.0.1:0", **settings, "redis": redis.url}
                found = await doctor(tmp_path, {"gateway": shared})
    assert "is up to date" in found["gateway.database"].said
    assert found["gateway.redis"].status == "ok"


@pytest.mark.parametrize(
    ("days", "status", "word"),
    [(90, "ok", "until"), (3, "warn", "soon"), (-1, "fail", "expired"), (None, "fail", "no certificate")],
)
def test_certificates(tmp_path: Path, days: int | None, status: str, word: str) -> None:
    issued = Authority(tmp_path, "a").issue("edge.test", days=9 if days is None else days)
    if days is None:
        issued.certificate.write_text("no certificate")
    found = certificate("gateway.tls.certificate", str(issued.certificate), str(issued.key))
    assert found.status == status
    assert word in found.said


@pytest.mark.parametrize("service", ["gateway", "worker"])
async def test_the_key_does_not_belong_to_the_certificate(tmp_path: Path, service: str) -> None:
    authority = Authority(tmp_path, "a")
    tls = {"certificate": str(authority.issue("a.test").certificate), "key": str(authority.issue("b.test").key)}
    config: dict[str, Any] = {
        "gateway": {"auth": "open", "workers": {"openai": "127.0.0.1:1"}},
        "worker": {"openai": {"upstreams": {"one": {"base_url": "http://127.0.0.1:1/v1"}}}},
    }
    config[service]["tls"] = tls
    found = await doctor(tmp_path, config)
    about = found["gateway" if service == "gateway" else "worker.tls.certificate"]
    assert about.status == "fail"
    assert tls["key"] in about.said

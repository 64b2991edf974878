"""What the services write down: whose request it was on every line, and never what was asked or what opens a door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import services
from support.chain import model
from support.client import Client, ask
from support.services import Service
from support.upstream import Gate, Reply, ScriptedUpstream, completion, text_stream

KEY = "sk-that-opens-the-gateway"
CREDENTIAL = "sk-that-opens-the-upstream"
PROMPT = "What nobody but the model may read"
ANSWER = "What nobody but the client may read"


@dataclass
class Served:
    gateway: Service
    worker: Service
    first: ScriptedUpstream
    second: ScriptedUpstream

    async def lines(self) -> list[dict[str, Any]]:
        """All that both have logged; they are ended by this."""
        text = ""
        for service in (self.gateway, self.worker):
            await service.stop()
            text += service.new_log()
        return [json.loads(line) for line in text.splitlines()]


@asynccontextmanager
async def served(folder: Path, level: str = "info") -> AsyncIterator[Served]:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        logs = {"log_format": "json", "log_level": level}
        upstreams = {
            "first": {"base_url": first.url, "credential_env": "UPSTREAM_KEY", "retries": 1},
            "second": {"base_url": second.url, "credential_env": "UPSTREAM_KEY", "retries": 1},
        }
        environment = {"UPSTREAM_KEY": CREDENTIAL}
        settings = {**logs, "log_calls": "all"}
        async with services.worker("openai", folder, upstreams, environment, settings=settings) as worker:
            digest = hashlib.sha256(KEY.encode()).hexdigest()
            edge = {
                **logs,
                "access_log": True,
                "auth": "keys",
                "keys": [{"name": "tests", "sha256": digest}],
                "workers": {"openai": worker.address},
                "models": [model("one", "first"), model("pair", "first", "second")],
            }
            async with services.gateway(edge, folder) as gateway:
                yield Served(gateway, worker, first, second)


async def test_every_line_of_a_request_says_whose_it_is(tmp_path: Path) -> None:
    async with served(tmp_path) as it:
        async with Client(it.gateway.address, {"authorization": f"Bearer {KEY}"}) as client:
            it.first.will(Reply.json({"error": {"message": "Busy."}}, 503))
            it.second.will(Reply.json({"error": {"message": "Busy."}}, 503), Reply.json(completion()))
            ids = {"x_request_id": "r1", "x_session_id": "s1", "x_client_id": "phone"}
            assert (await client.chat(ask("pair"), **ids)).headers["x-trestle-attempts"] == "3"
        lines = await it.lines()
    of_it = [line for line in lines if line.get("request_id") == "r1"]
    assert all((line["account"], line["session"], line["client"]) for line in of_it)
    assert {(line["session"], line["client"]) for line in of_it} == {("s1", "phone")}
    said = [(line["service"], line["event"].partition(":")[0]) for line in of_it]
    assert ("worker", "Chat failed") in said
    assert any(service == "gateway" and "failed, moving on" in event for service, event in said)
    assert any(service == "worker" and "once more in" in event for service, event in said)
    (request,) = [line for line in of_it if line["event"] == "request"]
    expected = {"outcome": "done", "status": 200, "model": "pair", "upstream": "second", "attempts": 3, "key": "tests"}
    assert expected.items() <= request.items()
    assert [line["status"] for line in of_it if line["event"] == "call"] == ["UNAVAILABLE", "OK"]
    assert {"timestamp", "level", "logger"} <= request.keys()
    # What is not about a request does not say that it were.
    (ending,) = [line for line in lines if line["service"] == "gateway" and line["event"].startswith("stopping")]
    assert "request_id" not in ending


async def test_nothing_that_is_secret_is_written_down(tmp_path: Path) -> None:
    question = [{"role": "user", "content": PROMPT}]
    async with served(tmp_path, "debug") as it:
        async with Client(it.gateway.address, {"authorization": f"Bearer {KEY}"}) as client:
            it.first.will(Reply.json(completion(ANSWER)))
            assert (await client.chat(ask("one", messages=question))).status == 200
            it.first.will(Reply.sse(*text_stream([ANSWER])))
            assert (await client.stream(ask("one", messages=question))).done
            it.first.will(Reply.sse(*text_stream([ANSWER])[:2], Gate()))
            async with client.open(ask("one", messages=question)) as stream:
                await stream.event()
                stream.hang_up()
            # Upstreams that say what they were shown.
            for status in (400, 401, 403, 429, 500):
                told = {"error": {"message": f"Who are you? {CREDENTIAL} is no key of mine."}}
                it.first.will(*[Reply.json(told, status)] * (2 if status >= 429 else 1))
                answer = await client.chat(ask("one", messages=question))
                assert answer.status >= 400
                assert CREDENTIAL.encode() not in answer.body
            for form in ('{"messages": "%s', '{"model": 1, "messages": ["%s"]}'):
                body = (form % PROMPT).encode()
                assert (await client.ask("POST", "/v1/chat/completions", body)).status == 400
            assert (await client.ask("POST", f"/v1/chat/completions/none?key={KEY}", b"{}")).status == 404
        for wrong in ("Bearer sk-somebody-elses", "Basic c2stc29tZWJvZHk="):
            async with Client(it.gateway.address, {"authorization": wrong}) as client:
                assert (await client.chat(ask("one", messages=question))).status == 401
        await it.gateway.stop()
        await it.worker.stop()
        text = it.gateway.new_log() + it.worker.new_log()
    assert text.count('"event":"request"') > 8
    for secret in (KEY, CREDENTIAL, PROMPT, ANSWER, "sk-somebody-elses", "c2stc29tZWJvZHk"):
        assert secret not in text, secret


async def test_text_says_the_same(tmp_path: Path) -> None:
    async with services.gateway({"workers": {"w": "127.0.0.1:1"}, "access_log": True}, tmp_path) as gateway:
        async with Client(gateway.address) as client:
            assert (await client.chat(ask("w/none"), x_request_id="r 1")).status in (404, 503)
        (line,) = [each for each in (await gateway.logged(" kind=chat")).splitlines() if " kind=chat" in each]
    assert " INFO gateway: request kind=chat model=w/none " in line
    assert 'request_id="r 1" account=default' in line

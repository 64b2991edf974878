"""What the services write down: whose request it was on every line, and never what was asked or what opens a door."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import accounts, services
from support.chain import model
from support.client import Client, ask
from support.services import Service
from support.upstream import Gate, Reply, ScriptedUpstream, completion, sse, text_stream

from trestle.sealed import new_pair

KEY = "sk-that-opens-the-gateway"
CREDENTIAL = "sk-that-opens-the-upstream"
PROMPT = "What nobody but the model may read"
ANSWER = "What nobody but the client may read"


CARELESS = """
class Careless:
    name = "careless"
    params = {}

    def ignored_params(self, request):
        return []

    def answer(self, request):
        raise ValueError("what shall I say to " + request.messages[0].text)

    def list_models(self):
        return []


FAMILY = Careless()
"""


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
                message = f"Who are you? {CREDENTIAL} is no key of mine."
                told = {"error": {"message": message, "type": CREDENTIAL, "code": CREDENTIAL, "param": CREDENTIAL}}
                it.first.will(*[Reply.json(told, status)] * (2 if status >= 429 else 1))
                answer = await client.chat(ask("one", messages=question))
                assert answer.status >= 400
                assert CREDENTIAL.encode() not in answer.body
            # And those that say what they were asked, or who asked; some of them in the middle of an answer.
            quoted = {"message": f"No: {PROMPT}", "type": KEY, "code": PROMPT, "param": PROMPT}
            for status in (400, 404, 413, 418, 429, 500, 503):
                it.first.will(*[Reply.json({"error": quoted}, status)] * (2 if status >= 429 else 1))
                assert (await client.chat(ask("one", messages=question))).status >= 400
            it.first.will(Reply.sse(*text_stream([ANSWER])[:2], sse({"error": quoted})))
            assert (await client.stream(ask("one", messages=question))).error is not None
            it.first.will(Reply([PROMPT.encode()], 502), Reply([PROMPT.encode()], 502))
            assert (await client.chat(ask("one", messages=question))).status >= 500
            for member in ({"messages": [{"role": PROMPT, "content": ""}]}, {"stop": {PROMPT: 1}}, {"n": PROMPT}):
                assert (await client.chat(ask("one", **member))).status == 400
            for path in (f"/v1/{KEY}", f"/v1/models/{KEY}", f"/v1/chat/completions?key={KEY}"):
                assert (await client.ask("GET", path)).status in (404, 405)
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
    for line in map(json.loads, text.splitlines()):
        assert "request_id" not in line or "account" in line, line
    for secret in (KEY, CREDENTIAL, PROMPT, ANSWER, "sk-somebody-elses", "c2stc29tZWJvZHk"):
        assert secret not in text, secret


async def test_nothing_of_an_accounts_secrets_is_written_down(tmp_path: Path) -> None:
    """What it has stored passes the database, whose libraries like to talk."""
    pair, own = new_pair(), "sk-that-is-the-accounts-own"
    async with ScriptedUpstream() as upstream:
        logs = {"log_format": "json", "log_level": "debug"}
        one = {"base_url": upstream.url, "accept_credentials": True, "retries": 0}
        environment = {"SEAL": pair.private}
        settings = {**logs, "log_calls": "all", "name": "w", "seal_key_envs": ["SEAL"]}
        async with services.worker("openai", tmp_path, {"u": one}, environment, settings=settings) as worker:
            edge = {
                **logs,
                "access_log": True,
                "auth": "keys",
                "workers": {"w": {"address": worker.address, "seal_key": pair.public}},
                "database": f"sqlite:///{tmp_path}/t.db",
            }
            async with accounts.gateway(edge, tmp_path, "gateway") as gateway:
                bridge = accounts.Bridge(gateway, gateway, upstream)
                made = await bridge.new_key()
                key = made["key"]
                stored: dict[str, dict[str, Any]] = {
                    "/v1/credentials": {"name": "mine", "worker": "w", "upstream": "u", "secret": own},
                    "/v1/models": {"name": "m", "worker": "w", "upstream": "u", "model": "m", "credential": "mine"},
                    "/v1/agents": {"name": "a", "model": "m", "system_prompt": PROMPT},
                }
                for path, body in stored.items():
                    answer = await gateway.ask("POST", path, key, body)
                    assert answer.status == 200, answer.body
                upstream.will(Reply.json(completion(ANSWER)), Reply.json({"error": {"message": f"No {own}"}}, 401))
                for status in (200, 403):
                    assert (await gateway.ask("POST", "/v1/chat/completions", key, ask("a"))).status == status
                assert PROMPT in upstream.requests[-1].json["messages"][0]["content"]
                stored["/v1/agents"]["system_prompt"] = [PROMPT]
                for path, body in stored.items():
                    assert (await gateway.ask("POST", path, key, body)).status in (400, 409)
                assert (await gateway.ask("GET", "/v1/models", key[:-1] + "?")).status == 401
                await gateway.service.stop()
                await worker.stop()
                text = gateway.service.new_log() + worker.new_log()
    assert f'"account":"{next(iter(bridge.accounts.values()))}"' in text
    for secret in (key, own, PROMPT, ANSWER, accounts.ADMIN_KEY, pair.private):
        assert secret not in text, secret


async def test_a_crash_says_where_and_not_with_what(tmp_path: Path) -> None:
    """A family of somebody else's, whose failure quotes what it was asked."""
    (tmp_path / "careless.py").write_text(CARELESS)
    about = tmp_path / "careless-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[trestle.families]\ncareless = careless:FAMILY\n")
    logs = {"log_format": "json", "log_level": "debug"}
    environment = {"PYTHONPATH": str(tmp_path)}
    async with services.worker("careless", tmp_path, environment=environment, settings=logs, forks=False) as worker:
        edge = {**logs, "workers": {"w": worker.address}, "models": [model("m", "w:")]}
        async with services.gateway(edge, tmp_path) as gateway, Client(gateway.address) as client:
            question = [{"role": "user", "content": PROMPT}]
            assert (await client.chat(ask("m", messages=question), x_request_id="r1")).status == 500
            text = await worker.logged("Chat failed") + await gateway.logged("the request failed")
    assert PROMPT not in text
    (crash,) = [line for line in map(json.loads, text.splitlines()) if "exception" in line]
    assert (crash["event"], crash["request_id"], crash["family"]) == ("a call failed", "r1", "careless")
    assert "in answer" in crash["exception"]
    assert crash["exception"].endswith("ValueError")


async def test_text_says_the_same(tmp_path: Path) -> None:
    async with services.gateway({"workers": {"w": "127.0.0.1:1"}, "access_log": True}, tmp_path) as gateway:
        async with Client(gateway.address) as client:
            assert (await client.chat(ask("w/none"), x_request_id="r 1")).status in (404, 503)
        (line,) = [each for each in (await gateway.logged(" kind=chat")).splitlines() if " kind=chat" in each]
    assert " INFO gateway: request method=POST path=/v1/chat/completions kind=chat model=w/none " in line
    assert 'request_id="r 1" account=default' in line

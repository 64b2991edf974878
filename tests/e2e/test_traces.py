"""One trace for one request, over both services and up to the provider."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.chain import model
from support.client import Client, ask
from support.collector import Collector, Span
from support.services import ROOT, Service
from support.upstream import PATIENCE, USAGE, Cut, Framing, Gate, Reply, ScriptedUpstream, completion, text_stream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RPC = "trestle.v1.WorkerService/Chat"
REQUEST = ("trestle-gateway", "POST /v1/chat/completions")
ATTEMPT = ("trestle-gateway", RPC)
CALL = ("trestle-worker-openai", RPC)
UPSTREAM = ("trestle-worker-openai", "chat scripted-model")
ONE = [REQUEST, ATTEMPT, CALL, UPSTREAM]
PROMPT = "Nobody's business"


@dataclass
class Served:
    client: Client
    gateway: Service
    worker: Service
    first: ScriptedUpstream
    second: ScriptedUpstream


@asynccontextmanager
async def served(folder: Path, endpoint: str | None, **traces: Any) -> AsyncIterator[Served]:
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        told = {} if endpoint is None else {"traces": {"endpoint": endpoint, **traces}}
        upstreams = {
            "first": {"base_url": first.url, "retries": 1},
            "second": {"base_url": second.url, "retries": 1},
        }
        environment = {"COLLECTOR_TOKEN": "of-the-collector"}
        options: dict[str, Any] = {"settings": {**told, "max_connection_age": 0}, "environment": environment}
        async with services.worker("openai", folder, upstreams, **options) as worker:
            settings = {
                **told,
                "workers": {"openai": worker.address},
                "models": [
                    model("one", "first"),
                    model("pair", "first", "second"),
                    {**model("hedged", "first", "second"), "hedge_after": 0.05},
                ],
            }
            async with (
                services.gateway(settings, folder, environment=environment) as gateway,
                Client(gateway.address) as client,
            ):
                yield Served(client, gateway, worker, first, second)


def by_name(spans: list[Span]) -> dict[tuple[str, str], Span]:
    return {(span.service, span.name): span for span in spans}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
async def test_one_request_is_one_trace(tmp_path: Path, streamed: bool) -> None:
    headers = {"headers_env": {"x-token": "COLLECTOR_TOKEN"}}
    async with Collector() as collector, served(tmp_path, collector.url, **headers) as it:
        body = ask("one", messages=[{"role": "user", "content": PROMPT}])
        given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "x_request_id": "r1"}
        if streamed:
            it.first.will(Reply.sse(*text_stream(["Hi."])))
            assert (await it.client.stream(body, **given)).done
            answered = "scripted-model"
        else:
            answered = "scripted-model-of-today"
            it.first.will(Reply.json({**completion("Hi."), "model": answered}))
            assert (await it.client.chat(body, **given)).status == 200
        asked = it.first.requests[-1].headers
        spans = by_name(await collector.until(ONE))
    assert {span.trace for span in spans.values()} == {TRACE}
    order = [spans[name] for name in ONE]
    assert [span.parent for span in order] == [PARENT, *(span.id for span in order[:-1])]
    assert [span.kind for span in order] == ["SERVER", "CLIENT", "SERVER", "CLIENT"]
    assert not any(span.error for span in order)
    assert all(outer.start <= inner.start <= inner.end for outer, inner in itertools.pairwise(order))
    assert asked["traceparent"] == f"00-{TRACE}-{order[-1].id}-01"
    assert asked["tracestate"] == "vendor=1"
    request, attempt, call, upstream = (span.attributes for span in order)
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "one",
        "gen_ai.response.model": answered,
        "gen_ai.response.finish_reasons": ["stop"],
        "http.response.status_code": 200,
        "trestle.request_id": "r1",
        "trestle.account": "default",
        "trestle.outcome": "done",
    }
    assert expected.items() <= request.items()
    assert order[0].events == (["gen_ai.first_token"] if streamed else [])
    assert attempt["rpc.response.status_code"] == "OK"
    assert (call["rpc.response.status_code"], call["trestle.request_id"]) == ("OK", "r1")
    asked_for = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "scripted-model"}
    assert {**asked_for, "gen_ai.response.finish_reasons": ["stop"]}.items() <= call.items()
    told = {"gen_ai.provider.name": "openai", "gen_ai.request.model": "scripted-model", "trestle.upstream": "first"}
    assert told.items() <= upstream.items()
    assert upstream["http.response.status_code"] == 200
    for attributes in (request, call, upstream):
        assert attributes["gen_ai.usage.input_tokens"] == USAGE["prompt_tokens"]
        assert attributes["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]
    assert PROMPT not in repr(order)
    assert collector.headers["x-token"] == "of-the-collector"


async def test_targets_that_were_left_have_spans_of_their_own(tmp_path: Path) -> None:
    async with Collector() as collector, served(tmp_path, collector.url) as it:
        it.first.will(Reply.json({"error": {"message": "Busy."}}, 503))
        it.second.will(Reply.json({"error": {"message": "Busy."}}, 503), Reply.json(completion()))
        assert (await it.client.chat(ask("pair"))).status == 200
        spans = await collector.until([REQUEST, *[ATTEMPT, CALL] * 2, *[UPSTREAM] * 3])
    (request,) = [span for span in spans if (span.service, span.name) == REQUEST]
    first, second = sorted((s for s in spans if (s.service, s.name) == ATTEMPT), key=lambda span: span.start)
    assert (first.attributes["trestle.upstream"], second.attributes["trestle.upstream"]) == ("first", "second")
    assert (first.error, first.attributes["error.type"]) == (True, "UPSTREAM_OVERLOADED")
    assert (second.error, second.attributes["trestle.tries"]) == (False, 2)
    assert {first.parent, second.parent} == {request.id}
    asked = sorted((s for s in spans if (s.service, s.name) == UPSTREAM), key=lambda span: span.start)
    assert [span.error for span in asked] == [True, True, False]
    assert not request.error


async def test_an_upstream_that_says_nothing_at_all_has_a_span_too(tmp_path: Path) -> None:
    async with Collector() as collector, served(tmp_path, collector.url) as it:
        it.first.will(Reply([Cut.CLOSE], framing=Framing.BARE))
        assert (await it.client.chat(ask("one"))).status == 503
        spans = await collector.until(ONE)
    assert {span.attributes["error.type"] for span in spans} == {"UPSTREAM_TRUNCATED"}
    assert not any("http.response.status_code" in span.attributes for span in spans if span.name == UPSTREAM[1])


async def test_how_a_request_ends_is_how_its_spans_end(tmp_path: Path) -> None:
    async with Collector() as collector, served(tmp_path, collector.url) as it:
        it.first.will(Reply.sse(*text_stream(["Hi."])[:2], Gate()))
        async with it.client.open(ask("one")) as stream:
            await stream.event()
            stream.hang_up()
        left = by_name(await collector.until(ONE))
        assert left[REQUEST].attributes["trestle.outcome"] == "cancelled"
        for name in (ATTEMPT, CALL):
            assert left[name].attributes["rpc.response.status_code"] == "CANCELLED"
        assert left[UPSTREAM].attributes["error.type"] == "CANCELLED"
        assert not any(span.error for span in left.values())
        collector.spans.clear()
        it.first.will(Reply.sse(*text_stream(["Hi."])[:2]))
        assert (await it.client.stream(ask("one"))).error is not None
        failed = by_name(await collector.until(ONE))
        assert [failed[name].error for name in ONE] == [True] * 4
        assert {span.attributes["error.type"] for span in failed.values()} == {"UPSTREAM_TRUNCATED"}
        collector.spans.clear()
        it.first.will(Reply.sse(Gate()))
        assert (await it.client.chat(ask("one"), x_request_timeout="1.5")).status == 504
        late = by_name(await collector.until(ONE))
        assert [late[name].error for name in ONE] == [True] * 4
        assert {span.attributes["error.type"] for span in late.values()} == {"DEADLINE_EXCEEDED"}
        assert "gen_ai.response.model" not in late[REQUEST].attributes
        collector.spans.clear()
        it.first.will(Reply.json({"error": {"message": "No.", "type": "invalid_request_error"}}, 400))
        assert (await it.client.chat(ask("one"))).status == 400
        wrong = by_name(await collector.until(ONE))
        assert [wrong[name].error for name in ONE] == [False, True, False, True]  # who serves did not, who asks did
        assert {span.attributes["error.type"] for span in wrong.values()} == {"INVALID_REQUEST"}
        assert wrong[ATTEMPT].attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
        collector.spans.clear()
        it.first.will(Reply.sse(Gate()))
        it.second.will(Reply.sse(*text_stream(["Hi."])))
        assert (await it.client.stream(ask("hedged"))).done
        raced = await collector.until([REQUEST, *[ATTEMPT, CALL, UPSTREAM] * 2])
        lost = [span.attributes.get("trestle.lost") for span in raced if (span.service, span.name) == ATTEMPT]
        assert sorted(lost, key=bool) == [None, True]


async def test_who_does_not_want_to_be_recorded_is_not(tmp_path: Path) -> None:
    async with Collector() as collector, served(tmp_path, collector.url, sample=0.0) as it:
        it.first.will(*[Reply.json(completion())] * 3)
        assert (await it.client.chat(ask("one"), traceparent=f"00-{TRACE}-{PARENT}-00")).status == 200
        assert it.first.requests[-1].headers["traceparent"] == f"00-{TRACE}-{PARENT}-00"
        assert (await it.client.chat(ask("one"))).status == 200
        assert not int(it.first.requests[-1].headers["traceparent"][-2:], 16) & 1
        assert (await it.client.chat(ask("one"), traceparent=f"00-{TRACE}-{PARENT}-01")).status == 200
        spans = await collector.until(ONE)  # of the last one alone
    assert {span.trace for span in spans} == {TRACE}


async def test_without_traces_the_context_goes_through_as_it_came(tmp_path: Path) -> None:
    async with served(tmp_path, None) as it:
        it.first.will(*[Reply.json(completion())] * 3)
        given = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
        assert (await it.client.chat(ask("one"), **given)).status == 200
        asked = it.first.requests[-1].headers
        assert {name: asked[name] for name in given} == given
        assert (await it.client.chat(ask("one"), **{**given, "tracestate": "v=" + "1" * 12_000})).status == 200
        assert "tracestate" not in it.first.requests[-1].headers
        assert (await it.client.chat(ask("one"))).status == 200
        assert not given.keys() & it.first.requests[-1].headers.keys()


def test_without_traces_nothing_of_them_is_loaded() -> None:
    script = "import sys, gateway.process, worker.server; print([n for n in sys.modules if 'opentelemetry' in n])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_collector_that_is_away_holds_nobody_up(tmp_path: Path) -> None:
    async with Collector() as collector:
        gone = collector.url
    async with served(tmp_path, gone) as it:
        it.first.will(*[Reply.json(completion())] * 20)
        for _ in range(20):
            assert (await it.client.chat(ask("one"))).status == 200
        os.kill(it.gateway.process.pid, signal.SIGTERM)
        assert await it.gateway.process.wait() == 0


async def test_a_collector_that_never_answers_holds_nobody_up(tmp_path: Path) -> None:
    async with Collector(silent=True) as collector, served(tmp_path, collector.url) as it:
        it.first.will(*[Reply.json(completion())] * 2)
        assert (await it.client.chat(ask("one"))).status == 200
        async with asyncio.timeout(PATIENCE):
            await collector.asked.wait()
        assert (await it.client.chat(ask("one"))).status == 200
        for service in (it.gateway, it.worker):
            assert await service.stop() == 0


@pytest.mark.parametrize("command", [("gateway",), ("worker", "echo")], ids=["gateway", "worker"])
def test_traces_that_are_not_installed_are_an_error(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").touch()  # hides what is installed
    parts: dict[str, Any] = {"gateway": {"auth": "open", "workers": {"w": "127.0.0.1:1"}}, "worker": {}}
    for part in parts.values():
        part["traces"] = {"endpoint": "http://127.0.0.1:4318/v1/traces"}
    file = tmp_path / "trestle.yaml"
    file.write_text(json.dumps(parts))
    run = (*services.run(*command), "--check", "--config", str(file))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{command[0]}.traces: needs OpenTelemetry: pip install 'trestle[traces]'" in done.stderr


async def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    traces = {"endpoint": "http://127.0.0.1:4318/v1/traces", "headers_env": {"x-token": "UNSET_TOKEN"}}
    with pytest.raises(AssertionError, match=r"gateway\.traces\.headers_env\.x-token: the environment variable UNSET"):
        async with services.gateway({"workers": {"w": "127.0.0.1:1"}, "traces": traces}, tmp_path):
            pass

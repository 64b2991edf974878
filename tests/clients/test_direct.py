"""Services that call a worker themselves, in Python and in Node: what one can do, both can, in plaintext and over
mutual TLS with a token."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import pytest
import pytest_asyncio
from clients import install
from clients.calls import Driver, driver
from support import services
from support.certificates import Authority
from support.services import ROOT
from support.upstream import USAGE, Cut, Framing, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAME: Final = "worker.test"
OURS: Final = "spiffe://cluster.test/ns/billing/sa/reports"
TOKEN: Final = "t0ken-of-these-tests"
ASK: Final = {"model": "scripted-model", "text": "Hello?"}
TOLD: Final = [USAGE["prompt_tokens"], USAGE["completion_tokens"]]
Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Driver]]


@dataclass(frozen=True)
class Running:
    """A worker in front of an upstream. tls, token: how it is called."""

    address: str
    upstream: ScriptedUpstream
    authority: Authority
    tls: dict[str, str] | None
    token: str


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["plaintext", "tls"])
async def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Running]:
    folder = tmp_path_factory.mktemp(f"direct-{request.param}")
    authority = Authority(folder)
    settings: dict[str, Any] = {}
    tls = None
    if request.param == "tls":
        caller = {"name": "reports", "identities": [OURS], "token_envs": ["REPORTS_TOKEN"]}
        settings = {"tls": authority.issue(NAME).server(authority.ca), "callers": [caller]}
        tls = authority.issue(OURS).client(name=NAME)
    async with ScriptedUpstream() as upstream:
        upstreams = {"scripted": {"base_url": upstream.url, "retries": 0, "models": ["scripted-model"]}}
        environment = {"REPORTS_TOKEN": TOKEN}
        async with services.worker("openai", folder, upstreams, environment, settings=settings) as worker:
            yield Running(worker.address, upstream, authority, tls, TOKEN if tls else "")


@pytest.fixture
def upstream(running: Running) -> Iterator[ScriptedUpstream]:
    yield running.upstream
    assert not running.upstream.forget(), "replies that nobody asked for"


@pytest.fixture(scope="module", params=["python", "node"])
def start(request: pytest.FixtureRequest) -> Start:
    """Starts a client of this language."""
    if request.param == "node":
        node: Path = request.getfixturevalue("node_binary")
        command: tuple[str | Path, ...] = (node, install.HERE / "node" / "direct.mjs")
    else:
        command = (sys.executable, install.HERE / "python" / "direct.py")

    def started(worker: Running, **other: Any) -> AbstractAsyncContextManager[Driver]:
        settings = {"target": worker.address, "protos": str(ROOT / "proto"), "tls": worker.tls, "token": worker.token}
        environment = {"PYTHONPATH": str(ROOT)}
        return driver(*command, json.dumps({**settings, **other}), environment=environment)

    return started


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(start: Start, running: Running) -> AsyncIterator[Driver]:
    async with start(running) as client:
        yield client


def number(code: grpc.StatusCode) -> int:
    status: int = code.value[0]
    return status


async def test_a_stream_as_it_comes(client: Driver, upstream: ScriptedUpstream) -> None:
    """The second piece leaves the upstream only when the first has been read."""
    gate = Gate()
    events = text_stream(["Hel", "lo 🎉"])
    upstream.will(Reply.sse(*events[:2], gate, *events[2:]))
    call = client.start("stream", ASK)
    await call.text("Hel")
    gate.set()
    await call.text("lo 🎉")
    assert await call.answer() == {"text": "Hello 🎉", "finish": "FINISH_REASON_STOP", "usage": TOLD}


async def test_in_one_piece(client: Driver, upstream: ScriptedUpstream) -> None:
    upstream.will(Reply.json(completion("Hello.", "length")))
    answer = await client.ask("complete", ASK)
    assert answer == {"text": "Hello.", "finish": "FINISH_REASON_LENGTH", "usage": TOLD}
    assert "stream" not in upstream.requests[0].json


async def test_models(client: Driver) -> None:
    assert await client.ask("models") == ["scripted-model"]


@pytest.mark.parametrize("do", ["stream", "complete"])
async def test_an_error_with_its_details(do: str, client: Driver, upstream: ScriptedUpstream) -> None:
    error = {"error": {"message": "Slow down.", "type": "requests", "param": "n", "code": "rate_limit_exceeded"}}
    upstream.will(Reply.json(error, 429, retry_after="3", x_request_id="req_theirs"))
    assert await client.start(do, ASK).raised() == {
        "status": number(grpc.StatusCode.RESOURCE_EXHAUSTED),
        "reason": "UPSTREAM_RATE_LIMITED",
        "message": "Slow down.",
        "param": "n",
        "retry_after": 3.0,
        "upstream_status": 429,
        "upstream_request_id": "req_theirs",
        "usage": None,
    }


async def test_a_cut_is_no_end(client: Driver, upstream: ScriptedUpstream) -> None:
    used = sse(chunk({"content": "Hel"}, usage={"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}))
    upstream.will(Reply.sse(used, Cut.CLOSE))
    call = client.start("stream", ASK)
    await call.text("Hel")
    raised = await call.raised()
    assert (raised["reason"], raised["usage"]) == ("UPSTREAM_TRUNCATED", [11, 2])


@pytest.mark.parametrize("do", ["stream", "complete"])
async def test_a_deadline(do: str, client: Driver, upstream: ScriptedUpstream) -> None:
    upstream.will(Reply([Gate()], framing=Framing.BARE))
    raised = await client.start(do, ASK, timeout=1.5).raised()
    assert raised["status"] == number(grpc.StatusCode.DEADLINE_EXCEEDED)
    await (await upstream.request()).closed()


@pytest.mark.parametrize("do", ["stream", "complete"])
async def test_a_cancelled_call_ends_the_upstreams_work(do: str, client: Driver, upstream: ScriptedUpstream) -> None:
    upstream.will(Reply.sse(sse(chunk({"content": "Hel"})), Gate()))
    call = client.start(do, ASK)
    request = await upstream.request()
    if do == "stream":
        await call.text("Hel")
    client.abort(call)
    assert (await call.raised())["status"] == number(grpc.StatusCode.CANCELLED)
    await request.closed()


async def test_so_does_leaving_the_loop(client: Driver, upstream: ScriptedUpstream) -> None:
    upstream.will(Reply.sse(sse(chunk({"content": "Hel"})), Gate()))
    assert await client.ask("leave", ASK) == "Hel"
    await (await upstream.request()).closed()


@pytest.mark.parametrize("running", ["tls"], indirect=True)
async def test_who_may_not_call(start: Start, running: Running) -> None:
    """No certificate, a worker of another authority or another name, a wrong token."""
    assert running.tls is not None
    stranger = Authority(running.authority.ca.parent, "stranger")
    unavailable, unauthenticated = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED
    for other, status in (
        ({"tls": {"ca": running.tls["ca"], "name": NAME}}, unavailable),
        ({"tls": {**running.tls, "ca": str(stranger.ca)}}, unavailable),
        ({"tls": {**running.tls, "name": "other.test"}}, unavailable),
        ({"token": "wrong"}, unauthenticated),
        ({"token": ""}, unauthenticated),
    ):
        async with start(running, **other) as client:
            raised = await client.start("models").raised()
            assert (raised["status"], raised["reason"]) == (number(status), "UNSPECIFIED"), other

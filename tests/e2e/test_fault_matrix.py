"""Every fault of an upstream, as a stream and in one piece, at the first target alone and at all of them: what the
caller is told, who was asked, and what is known of the usage."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from support import services
from support.chain import model
from support.client import Client, ask, assert_error_object
from support.services import Service
from support.upstream import (
    PATIENCE,
    USAGE,
    Cut,
    Framing,
    Gate,
    Reply,
    ScriptedUpstream,
    Step,
    chunk,
    completion,
    sse,
    text_stream,
)

from trestle.errors import DETAILS_KEY, STATUS, Reason
from trestle.v1 import chat_pb2, worker_service_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="session")
both_ways = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])

WORDS: Final = "The upstream's words."
MEGABYTE: Final = 1_000_000
HELLO: Final = sse(chunk({"role": "assistant", "content": "Hel"}))
BEGUN: Final = sse(chunk({"role": "assistant", "content": ""}))
LONG: Final = "x" * 10 * MEGABYTE
JSON: Final = {"content-type": "application/json"}
GZIP: Final = {"content-encoding": "gzip"}
BOMB: Final = gzip.compress(bytes(200 * MEGABYTE), 1)
HTML: Final = Reply([b"<!doctype html><h1>Welcome</h1>"], headers={"content-type": "text/html"})
TEXT: Final = Reply([b"All is well here."], headers={"content-type": "text/plain"})
# status, type, code
UNREACHABLE: Final = (503, "service_unavailable", "upstream_unreachable")
TRUNCATED: Final = (503, "service_unavailable", "upstream_truncated")
OVERLOADED: Final = (503, "service_unavailable", "upstream_overloaded")
TIMEOUT: Final = (504, "timeout", "upstream_timeout")
PROTOCOL: Final = (502, "bad_gateway", "upstream_protocol")
FAILED: Final = (502, "bad_gateway", "upstream_failed")
LIMITED: Final = (429, "rate_limit_exceeded", "rate_limit_exceeded")


def said(status: int, **headers: str) -> Reply:
    """An error as OpenAI says it."""
    code = {404: "model_not_found", 429: "rate_limit_exceeded"}.get(status)
    return Reply.json({"error": {"message": WORDS, "type": "x", "param": None, "code": code}}, status, **headers)


def endless() -> Reply:
    """More than anybody takes."""
    return Reply.sse(HELLO, *[sse(chunk({"content": "x" * 10_000}))] * 100_000)


@dataclass(frozen=True)
class Fault:
    """stream, whole: what the upstream answers to either form; None: it is not asked. told: status, type and code, of a
    whole answer its own where that differs. kind: the upstream's settings. falls: another target may help. begun: a
    stream has had content by then. retry_after: what the caller is told of it."""

    stream: Reply | None
    whole: Reply | None
    told: tuple[int, str, str]
    told_whole: tuple[int, str, str] | None = None
    kind: str = "plain"
    falls: bool = True
    begun: bool = False
    words: bool = False
    retry_after: str | None = None


def alike(reply: Reply | None, told: tuple[int, str, str], **members: Any) -> Fault:
    """A fault that does not ask what form was wanted."""
    return Fault(reply, reply, told, **members)


FAULTS: Final = {
    "refused": alike(None, UNREACHABLE, kind="refused"),
    "reset": alike(Reply([Cut.RESET], framing=Framing.BARE), TRUNCATED),
    "slow connect": alike(None, UNREACHABLE, kind="slow"),
    "TLS failure": alike(None, UNREACHABLE, kind="tls"),
    "silence for TLS": alike(None, UNREACHABLE, kind="tls-silent"),
    "401": alike(said(401), (502, "bad_gateway", "upstream_credential")),
    "404": alike(said(404), (404, "invalid_request_error", "model_not_found"), falls=False, words=True),
    "429": alike(said(429), LIMITED, words=True),
    "429 with Retry-After": alike(said(429, retry_after="7"), LIMITED, words=True, retry_after="7"),
    "500": alike(said(500), FAILED, words=True),
    "503": alike(said(503), OVERLOADED, words=True),
    "529": alike(said(529), OVERLOADED, words=True),
    "HTML": alike(HTML, PROTOCOL),
    "text instead of events or JSON": alike(TEXT, PROTOCOL),
    "malformed": Fault(Reply.sse(b"data: {\n\n"), Reply([b"{"], headers=JSON), PROTOCOL),
    "malformed later": alike(Reply.sse(HELLO, b"data: {\n\n"), PROTOCOL, begun=True),
    "an event of 10 MB": alike(Reply.sse(sse(chunk({"content": LONG}))), PROTOCOL, kind="narrow"),
    "an answer of 10 MB": Fault(
        Reply.sse(sse(chunk({"content": LONG}))), Reply.json(completion(LONG)), PROTOCOL, kind="narrow"
    ),
    "a line without end": alike(Reply.sse(BEGUN, b":", *[b"x" * 100_000] * 100), PROTOCOL, kind="narrow"),
    "a head without end": alike(
        Reply([b"HTTP/1.1 200 OK\r\nx-a: ", *[b"x" * 100_000] * 100], framing=Framing.BARE), PROTOCOL
    ),
    "HTTP that breaks later": alike(
        Reply([Reply.sse(HELLO).wire()[: -len(b"0\r\n\r\n")] + b"no chunk\r\n", Gate()], framing=Framing.BARE),
        PROTOCOL,
        begun=True,
    ),
    "a bomb": Fault(
        Reply([BOMB], headers={"content-type": "text/event-stream", **GZIP}),
        Reply([BOMB], headers={**JSON, **GZIP}),
        PROTOCOL,
    ),
    "cut": Fault(Reply.sse(BEGUN, Cut.CLOSE), Reply([b'{"choices":', Cut.CLOSE], headers=JSON), TRUNCATED),
    "cut by a reset": Fault(Reply.sse(BEGUN, Cut.RESET), Reply([b'{"choices":', Cut.RESET], headers=JSON), TRUNCATED),
    "cut later": alike(Reply.sse(HELLO, Cut.CLOSE), TRUNCATED, begun=True),
    "stall": alike(Reply([Gate()], framing=Framing.BARE), TIMEOUT, kind="impatient"),
    "stall after the head": Fault(
        Reply.sse(Gate()), Reply([b"{", Gate()], headers=JSON), TIMEOUT, kind="impatient"
    ),
    "stall later": alike(Reply.sse(HELLO, Gate()), TIMEOUT, kind="impatient", begun=True),
    "endless": Fault(endless(), None, TIMEOUT, kind="hurried", begun=True),
    "endless in one piece": Fault(None, endless(), PROTOCOL, kind="narrow"),
    "wrong content type": alike(Reply([b"\x89PNG"], headers={"content-type": "image/png"}), PROTOCOL),
    "JSON that is none": alike(Reply([b"upstream connect error"], headers=JSON), PROTOCOL),
    "an error inside": Fault(
        Reply.sse(sse({"error": {"message": WORDS, "type": "overloaded_error"}})),
        Reply.json({"error": {"message": WORDS, "type": "overloaded_error"}}),
        OVERLOADED,
        words=True,
    ),
    "an error inside later": alike(
        Reply.sse(HELLO, sse({"error": {"message": WORDS, "type": "server_error"}})), FAILED, begun=True, words=True
    ),
    "redirect": alike(Reply([], 307, {"location": "http://127.0.0.1:9/"}, Framing.LENGTH), PROTOCOL),
}
KINDS: Final = ("plain", "impatient", "narrow", "hurried", "refused", "slow", "tls", "tls-silent")
ONE_FORM: Final = {"endless": True, "endless in one piece": False}
CASES: Final = [
    pytest.param(fault, streamed, id=f"{name}-{'stream' if streamed else 'whole'}")
    for name, fault in FAULTS.items()
    for streamed in (False, True)
    if name not in ONE_FORM or ONE_FORM[name] == streamed
]
every_fault = pytest.mark.parametrize(("fault", "streamed"), CASES)


@contextmanager
def never_accepts() -> Iterator[str]:
    """An address that takes no connection and refuses none: its queue is full."""
    with socket.socket() as listener, socket.socket() as one, socket.socket() as two:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (one, two):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@asynccontextmanager
async def fails_tls() -> AsyncIterator[str]:
    """The address of a server without a certificate: no handshake with it succeeds."""
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0, ssl=bare)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@dataclass(frozen=True)
class Bridge:
    """first, second: what the two targets of every model reach, where they reach anything."""

    first: ScriptedUpstream
    second: ScriptedUpstream
    worker: Service
    gateway: Service


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bridge(tmp_path_factory: pytest.TempPathFactory, dead_address: str) -> AsyncIterator[Bridge]:
    """For each kind two models: `KIND-first`, whose second target is a good one, and `KIND-all`."""
    folder: Path = tmp_path_factory.mktemp("faults")
    hasty = {"connect_timeout": 0.3}
    with never_accepts() as full:
        async with ScriptedUpstream() as first, ScriptedUpstream() as second, fails_tls() as no_tls:
            upstreams: dict[str, Any] = {}
            for at, one in enumerate((first, second), 1):
                upstreams |= {
                    f"plain{at}": {"base_url": one.url},
                    f"impatient{at}": {"base_url": one.url, "first_byte_timeout": 1.0, "idle_timeout": 1.0},
                    f"narrow{at}": {
                        "base_url": one.url, "max_event_bytes": MEGABYTE, "max_answer_bytes": 2 * MEGABYTE,
                    },
                    f"hurried{at}": {"base_url": one.url, "timeout": 1.0},
                    f"refused{at}": {"base_url": f"http://{dead_address}/v1"},
                    f"slow{at}": {"base_url": f"http://{full}/v1", **hasty},
                    f"tls{at}": {"base_url": f"https://{no_tls}/v1"},
                    f"tls-silent{at}": {"base_url": f"https://127.0.0.1:{one.port}/v1", **hasty},
                }  # fmt: skip
            for each in upstreams.values():
                each |= {"retries": 0, "models": ["m"]}
            models = [model(f"{kind}-first", f"{kind}1", "plain2") for kind in KINDS]
            models += [model(f"{kind}-all", f"{kind}1", f"{kind}2") for kind in KINDS]
            async with services.worker("openai", folder, upstreams) as worker:
                settings = {
                    "workers": {"openai": worker.address},
                    "models": models,
                    "breaker": {"failures": 1_000_000, "longest_rest": 0},
                }
                async with services.gateway(settings, folder) as gateway:
                    yield Bridge(first, second, worker, gateway)


@pytest_asyncio.fixture(loop_scope="session")
async def client(bridge: Bridge) -> AsyncIterator[Client]:
    async with Client(bridge.gateway.address) as client:
        yield client
    assert not bridge.first.forget(), "replies that nobody asked for"
    assert not bridge.second.forget(), "replies that nobody asked for"


def good(streamed: bool) -> Reply:
    return Reply.sse(*text_stream(["Second."])) if streamed else Reply.json(completion("Second."))


def script(fault: Fault, streamed: bool, *upstreams: ScriptedUpstream) -> int:
    """Makes them answer so; returns how many requests each will see."""
    reply = fault.stream if streamed else fault.whole
    if reply is None:
        return 0
    for upstream in upstreams:
        upstream.will(reply)
    return 1


def assert_told(fault: Fault, streamed: bool, error: dict[str, Any], status: int | None) -> None:
    """The error object is the one expected; status: of HTTP, None for an event."""
    expected, kind, code = fault.told if streamed or fault.told_whole is None else fault.told_whole
    assert status in (None, expected)
    assert (error["type"], error["code"]) == (kind, code)
    assert (error["message"] == WORDS) == fault.words


@every_fault
async def test_at_all_targets(fault: Fault, streamed: bool, client: Client, bridge: Bridge) -> None:
    """The last cause is told, by a status, or by an event where content was out; then no other target is asked."""
    alone = not fault.falls or (fault.begun and streamed)
    asked = script(fault, streamed, *((bridge.first,) if alone else (bridge.first, bridge.second)))
    answer = await client.chat(ask(f"{fault.kind}-all", stream=streamed))
    assert answer.headers["x-trestle-attempts"] == ("1" if alone else "2")
    assert len(bridge.first.requests) == asked
    assert len(bridge.second.requests) == (0 if alone else asked)
    if fault.begun and streamed:
        assert answer.status == 200
        *events, last, rest = answer.body.split(b"\n\n")
        assert rest == b""
        assert not any(b"[DONE]" in event or b'"finish_reason":"' in event for event in events)
        value = json.loads(last.removeprefix(b"data: "))
        assert_error_object(value)
        assert_told(fault, streamed, value["error"], None)
    else:
        assert_told(fault, streamed, answer.error(), answer.status)
        assert answer.headers.get("retry-after") == fault.retry_after
        assert answer.headers.get("x-should-retry") == (None if alone else "false")
    for upstream in (bridge.first, bridge.second):
        for request in upstream.requests:
            if not request.answered.is_set():
                await request.closed()


@every_fault
async def test_at_the_first_target(fault: Fault, streamed: bool, client: Client, bridge: Bridge) -> None:
    """The second one answers, as if nothing had been, unless content was out or the fault is the caller's own."""
    alone = not fault.falls or (fault.begun and streamed)
    asked = script(fault, streamed, bridge.first)
    if not alone:
        bridge.second.will(good(streamed))
    request = ask(f"{fault.kind}-first", stream_options={"include_usage": True})
    if not streamed:
        answer = await client.chat(request)
        headers = answer.headers
        if alone:
            assert_told(fault, streamed, answer.error(), answer.status)
        else:
            assert answer.status == 200, answer.body
            assert answer.json["choices"][0]["message"]["content"] == "Second."
            assert {name: answer.json["usage"][name] for name in USAGE} == USAGE
    elif not fault.falls:
        answer = await client.chat({**request, "stream": True})
        headers = answer.headers
        assert_told(fault, streamed, answer.error(), answer.status)
    else:
        stream = await client.stream(request)
        headers = stream.headers
        assert stream.done != fault.begun
        if fault.begun:
            assert stream.text().startswith("Hel")
            assert stream.error is not None
            assert_told(fault, streamed, stream.error, None)
        else:
            assert stream.text() == "Second."
            assert {name: stream.chunks[-1]["usage"][name] for name in USAGE} == USAGE
    assert headers["x-trestle-attempts"] == ("1" if alone else "2")
    assert (len(bridge.first.requests), len(bridge.second.requests)) == (asked, 0 if alone else 1)


async def texts_of(call: Any) -> list[str]:
    """The texts that come before the call fails."""
    texts: list[str] = []
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            texts += [chunk.text for chunk in response.chunks if chunk.text]
    except grpc.aio.AioRpcError:
        return texts
    raise AssertionError("it did not fail")


@every_fault
async def test_a_direct_caller(fault: Fault, streamed: bool, client: Client, bridge: Bridge) -> None:
    """The status and its details, the usage among them wherever the upstream had begun to answer."""
    script(fault, streamed, bridge.first)
    request = chat_pb2.ChatRequest(
        model="m",
        upstream=f"{fault.kind}1",
        stream=streamed,
        messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello?")],
    )
    async with grpc.aio.insecure_channel(bridge.worker.address) as channel:
        stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
        call = stub.Chat(request, timeout=PATIENCE)
        texts = await texts_of(call)
    trailers = dict(await call.trailing_metadata())
    status = status_pb2.Status.FromString(trailers[DETAILS_KEY])
    details = {detail.TypeName().rpartition(".")[2]: detail for detail in status.details}
    info = error_details_pb2.ErrorInfo.FromString(details["ErrorInfo"].value)
    told = fault.told if streamed or fault.told_whole is None else fault.told_whole
    reason = Reason.UPSTREAM_RATE_LIMITED if told[0] == 429 else Reason(told[2].upper())
    assert info.reason == reason.value
    assert info.metadata["upstream"] == f"{fault.kind}1"
    assert status.code == STATUS[reason] == (await call.code()).value[0]
    assert ("RetryInfo" in details) == (fault.retry_after is not None)
    assert "".join(texts[:1]) == ("Hel" if fault.begun and streamed else "")
    if fault.begun:
        usage = chat_pb2.Usage.FromString(details["Usage"].value)
        assert usage.estimated
        assert usage.input_tokens > 0
        assert usage.output_tokens > 0


@both_ways
async def test_what_is_large_and_within_the_limits(streamed: bool, client: Client, bridge: Bridge) -> None:
    pieces: list[Step] = [*text_stream([LONG])]
    bridge.first.will(Reply.sse(*pieces) if streamed else Reply.json(completion(LONG)))
    if streamed:
        stream = await client.stream(ask("plain-all"))
        assert (stream.text(), stream.done) == (LONG, True)
    else:
        answer = await client.chat(ask("plain-all"))
        assert answer.json["choices"][0]["message"]["content"] == LONG

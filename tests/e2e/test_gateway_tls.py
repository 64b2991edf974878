"""The gateway in the middle: HTTPS before it, workers behind it that it must know and that must know it."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc
import openai
import pytest
from support import services
from support.certificates import Authority, Files, credentials_of
from support.client import MESSAGES, Client, ask
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, completion, text_stream

from trestle.v1 import session_pb2, session_service_pb2_grpc

WORKER: Final = "worker.test"
EDGE: Final = "spiffe://cluster.test/ns/trestle/sa/gateway"
NEXT: Final = "spiffe://cluster.test/ns/trestle/sa/gateway-next"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def guarded_worker(
    folder: Path, authority: Authority, upstream: ScriptedUpstream, **more: Any
) -> AsyncIterator[Service]:
    """A worker that knows two gateways by their certificates; its model is `m`."""
    settings = {
        "tls": authority.issue(WORKER).server(authority.ca),
        "callers": [
            {"name": "edge", "identities": [EDGE], "gateway": True},
            {"name": "next", "identities": [NEXT], "gateway": True},
        ],
        "log_calls": "all",
        **more,
    }
    upstreams = {"u": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
    async with services.worker("openai", folder, upstreams, {"TOKEN": "a-token"}, settings=settings) as worker:
        yield worker


def behind(worker: Service, shown: Files, **more: Any) -> dict[str, Any]:
    """A gateway's settings for that worker. shown: what the gateway shows it."""
    return {"workers": {"w": {"address": worker.address, "tls": shown.client(name=WORKER), **more}}}


async def test_the_sdk_over_https_before_mutual_tls(tmp_path: Path, authority: Authority) -> None:
    async with ScriptedUpstream() as upstream, guarded_worker(tmp_path, authority, upstream) as worker:
        settings = {**behind(worker, authority.issue(EDGE)), "tls": authority.issue("127.0.0.1").server()}
        async with services.gateway(settings, tmp_path) as gateway:
            context = ssl.create_default_context(cafile=str(authority.ca))
            async with openai.AsyncOpenAI(
                base_url=f"https://{gateway.address}/v1",
                api_key="none",
                http_client=openai.DefaultAsyncHttpxClient(verify=context),
                default_headers={"x-session-id": "s1", "x-client-id": "c1"},
            ) as sdk:
                assert [model.id async for model in await sdk.models.list()] == ["m"]
                messages: Any = MESSAGES
                upstream.will(Reply.json(completion("Hi.")))
                answer = await sdk.chat.completions.create(model="m", messages=messages)
                assert answer.choices[0].message.content == "Hi."
                upstream.will(Reply.sse(*text_stream(["one", " two"])))
                stream = await sdk.chat.completions.create(model="m", messages=messages, stream=True)
                text = [chunk.choices[0].delta.content or "" async for chunk in stream]
                assert "".join(text) == "one two"
        log = await worker.logged("method=Chat")
        assert "call caller=edge " in log
        assert "session=s1 client=c1" in log


async def test_a_worker_that_does_not_know_us_or_is_not_who_it_should_be(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path, "stranger")
    unreachable, refused = (503, "worker_unavailable"), (502, "worker_failed")
    async with ScriptedUpstream() as upstream, guarded_worker(tmp_path, authority, upstream) as worker:
        cases: Mapping[str, tuple[dict[str, Any], tuple[int, str]]] = {
            "name": (authority.issue(EDGE).client(name="other.test"), unreachable),
            "address": (authority.issue(EDGE).client(), unreachable),
            "none": ({"ca": str(authority.ca), "name": WORKER}, unreachable),
            "expired": (authority.issue(EDGE, expired=True).client(name=WORKER), unreachable),
            "foreign": (stranger.issue(EDGE).client(authority.ca, name=WORKER), unreachable),
            "distrust": (authority.issue(EDGE).client(stranger.ca, name=WORKER), unreachable),
            "unlisted": (authority.issue("spiffe://cluster.test/else").client(name=WORKER), refused),
        }
        settings = {
            "workers": {name: {"address": worker.address, "tls": tls} for name, (tls, _) in cases.items()},
            "models": [{"name": name, "targets": [{"worker": name, "model": "m"}]} for name in cases],
        }
        async with services.gateway(settings, tmp_path) as gateway, Client(gateway.address) as client:
            for name, (_, expected) in cases.items():
                answer = await client.chat(ask(name))
                assert (answer.status, answer.error()["code"]) == expected, name
                assert "test" not in answer.error()["message"]
            answer = await client.ask("GET", "/readyz")
            # Health is for everybody with a certificate.
            assert answer.json["workers"] == {name: name == "unlisted" for name in cases}


async def test_a_token_for_the_worker(tmp_path: Path, authority: Authority) -> None:
    """By itself, and beside the certificate."""
    callers = [{"name": "edge", "identities": [EDGE], "token_envs": ["TOKEN"], "gateway": True}]
    environment = {"RIGHT": "a-token", "WRONG": "another-token"}
    async with (
        ScriptedUpstream() as upstream,
        guarded_worker(tmp_path, authority, upstream, callers=callers) as worker,
    ):
        shown = authority.issue(EDGE)
        workers = {
            name: behind(worker, shown, **({"token_env": name} if name in environment else {}))["workers"]["w"]
            for name in ("RIGHT", "WRONG", "NONE")
        }
        models = [{"name": name, "targets": [{"worker": name, "model": "m"}]} for name in workers]
        async with (
            services.gateway({"workers": workers, "models": models}, tmp_path, environment=environment) as gateway,
            Client(gateway.address) as client,
        ):
            upstream.will(Reply.json(completion("Hi.")))
            assert (await client.chat(ask("RIGHT"))).status == 200
            for name in ("WRONG", "NONE"):
                answer = await client.chat(ask(name))
                # 401 is about the client's own key, and this is not.
                assert (answer.status, answer.error()["code"]) == (502, "worker_failed")
            log = gateway.new_log() + worker.new_log()
        assert "token" not in log.replace("bearer token", "").replace("input_tokens", "").replace("output_tokens", "")


async def test_a_new_client_certificate_makes_a_new_channel_and_open_streams_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    shown = authority.issue(EDGE)
    gate = Gate()
    role, one, *rest = text_stream(["one", " two"])
    async with (
        ScriptedUpstream() as upstream,
        guarded_worker(tmp_path, authority, upstream) as worker,
        services.gateway(behind(worker, shown), tmp_path) as gateway,
        Client(gateway.address) as client,
    ):
        upstream.will(Reply.sse(role, one, gate, *rest))
        async with client.open(ask("m")) as stream:
            await stream.text("one")
            shown.certificate.write_bytes(b"not a certificate")
            assert "the old one stays" in await gateway.logged("refused")
            shown.take(authority.issue(NEXT))
            await gateway.logged("read anew")
            worker.new_log()
            upstream.will(Reply.json(completion("Hi.")))
            assert (await client.chat(ask("m"))).status == 200
            assert "caller=next" in await worker.logged("method=Chat")
            gate.set()
            assert (await stream.rest()).text() == "one two"
        assert "caller=edge" in await worker.logged("method=Chat")


async def test_a_new_server_certificate_counts_for_new_connections_and_open_streams_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    successor = Authority(tmp_path, "successor")
    served, shown, other = authority.issue("127.0.0.1"), authority.issue("a.test"), successor.issue("b.test")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.ca.read_bytes())
    gate = Gate()
    role, one, *rest = text_stream(["one", " two"])
    async with ScriptedUpstream() as upstream:
        upstreams = {"u": {"base_url": upstream.url, "models": ["m"], "retries": 0}}
        async with services.worker("openai", tmp_path, upstreams) as worker:
            settings = {"workers": {"w": worker.address}, "tls": served.server(clients)}
            async with (
                services.gateway(settings, tmp_path) as gateway,
                Client(gateway.address, context=shown.context()) as client,
            ):
                upstream.will(Reply.sse(role, one, gate, *rest))
                async with client.open(ask("m")) as stream:
                    await stream.text("one")
                    assert await reaches(gateway, shown.context())
                    assert not await reaches(gateway, other.context(authority.ca))
                    # What the server shows, and whom it believes, both become others.
                    served.take(successor.issue("127.0.0.1"))
                    clients.write_bytes(successor.ca.read_bytes())
                    assert await reaches(gateway, other.context(successor.ca))
                    assert not await reaches(gateway, other.context(authority.ca))
                    assert not await reaches(gateway, shown.context(successor.ca))
                    gate.set()
                    assert (await stream.rest()).text() == "one two"
            assert "gateway.tls: the certificate has been read anew" in gateway.new_log()


async def reaches(gateway: Service, context: ssl.SSLContext) -> bool:
    """Whether a new connection gets an answer."""
    async with Client(gateway.address, context=context) as client:
        try:
            return (await client.ask("GET", "/healthz")).status == 200
        except aiohttp.ClientError:
            return False


async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path, authority: Authority) -> None:
    """What stands between the gateway and its socket holds back as the socket does."""
    settings = {"tls": authority.issue("127.0.0.1").server(), "stall_timeout": 0.5}
    async with services.worker("echo", tmp_path) as worker:
        settings["workers"] = {"w": worker.address}
        async with services.gateway(settings, tmp_path) as gateway:
            host, _, port = gateway.address.partition(":")
            context = ssl.create_default_context(cafile=str(authority.ca))
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, limit=1024)
            body = json.dumps(ask("echo?tokens=1000000&chunk=50", stream=True)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
            await gateway.logged("a client has read nothing for 0.5 s: cut off")
            writer.transport.abort()


async def test_the_oldest_version(tmp_path: Path, authority: Authority) -> None:
    served = authority.issue("127.0.0.1").server()
    old = ssl.create_default_context(cafile=str(authority.ca))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with services.worker("echo", tmp_path) as worker:
        for version, expected in (("1.2", True), ("1.3", False)):
            tls = {**served, "min_version": version}
            settings = {"workers": {"w": worker.address}, "tls": tls, "grpc": services.FREE_PORT}
            async with services.gateway(settings, tmp_path) as gateway:
                events = await gateway.other_address("session events")
                new = ssl.create_default_context(cafile=str(authority.ca))
                for context, welcome in ((old, expected), (new, True)):
                    assert await reaches(gateway, context) is welcome
                    assert await shakes_hands(events, context) is welcome


async def shakes_hands(address: str, context: ssl.SSLContext) -> bool:
    host, _, port = address.partition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def test_every_listener_is_encrypted_but_that_for_probes(tmp_path: Path, authority: Authority) -> None:
    settings = {
        "tls": authority.issue("127.0.0.1").server(authority.ca),
        "database": f"sqlite:///{tmp_path}/trestle.db",
        "admin": {"listen": services.FREE_PORT, "key_env": "ADMIN"},
        "grpc": services.FREE_PORT,
        "health": services.FREE_PORT,
    }
    shown = authority.issue("probe.test")
    async with services.worker("echo", tmp_path) as worker:
        settings["workers"] = {"w": worker.address}
        async with services.gateway(settings, tmp_path, environment={"ADMIN": "the-admin-key"}) as gateway:
            admin = await gateway.other_address("admin API")
            events = await gateway.other_address("session events")
            health = await gateway.other_address("health")
            for address, path in ((gateway.address, "/v1/models"), (admin, "/admin/v1/accounts")):
                async with Client(address) as client:
                    with pytest.raises(aiohttp.ClientError):
                        await client.ask("GET", path)
                async with Client(address, context=shown.context()) as client:
                    assert (await client.ask("GET", path, authorization="Bearer the-admin-key")).status == 200
            async with Client(health) as client:
                assert (await client.ask("GET", "/healthz")).status == 200
                assert (await client.ask("GET", "/readyz")).json["workers"] == {"w": True}
                assert (await client.ask("GET", "/v1/models")).status == 404
            request = session_pb2.WatchSessionRequest(session="s", after="x")
            with pytest.raises(grpc.aio.AioRpcError) as clear:
                await watch(grpc.aio.insecure_channel(events), request)
            assert clear.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError) as encrypted:
                await watch(grpc.aio.secure_channel(events, credentials_of(shown, authority.ca)), request)
            assert encrypted.value.code() is grpc.StatusCode.INVALID_ARGUMENT  # it has been read


async def watch(opened: grpc.aio.Channel, request: session_pb2.WatchSessionRequest) -> None:
    async with opened:
        stub: Any = session_service_pb2_grpc.SessionServiceStub(opened)
        async with asyncio.timeout(PATIENCE):
            await anext(aiter(stub.WatchSession(request)))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"workers": {"w": {"address": "a:1", "token_env": "NOT_SET_HERE"}}}, "gateway.workers.w.token_env: .* NOT"),
        ({"workers": {"w": {"address": "a:1", "tls": {"ca": "/gone.pem"}}}}, "gateway.workers.w.tls.ca: /gone.pem: No"),
        ({"workers": {"w": {"address": "a:1", "tls": {"key": "k"}}}}, "gateway.workers.w.tls: certificate and key go"),
        ({"tls": {"certificate": "/gone.pem", "key": "/gone.pem"}}, "gateway.tls.certificate: /gone.pem: No such file"),
        ({"health": "8080"}, "gateway.health: '8080' is not HOST:PORT"),
    ],
)
@pytest.mark.parametrize("checking", [True, False])
async def test_what_cannot_be_used_is_said_at_the_start(
    tmp_path: Path, wrong: dict[str, Any], words: str, checking: bool
) -> None:
    config = {"gateway": {"auth": "open", "workers": {"w": "a:1"}, **wrong}}
    command = ("gateway", *(("--check",) if checking else ()))
    with pytest.raises(AssertionError, match=words):
        await services.start("wrong", *command, config=config, folder=tmp_path)

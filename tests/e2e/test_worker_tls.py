"""A worker that knows its callers: certificates, tokens, and whose word counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support import services
from support.certificates import Authority, Files, credentials_of
from support.services import Service
from support.upstream import PATIENCE, Gate, Reply, ScriptedUpstream, text_stream

from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2, model_pb2, worker_service_pb2_grpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]
NAME: Final = "worker.test"
GATEWAY: Final = "spiffe://cluster.test/ns/trestle/sa/gateway"
LISTED: Final = [
    {"name": "edge", "identities": [GATEWAY], "gateway": True},
    {"name": "billing", "identities": ["billing.test"]},
]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def channel(
    worker: Service, shown: Files | None, ca: Path, name: str = NAME
) -> AsyncIterator[grpc.aio.Channel]:
    """shown: the caller's certificate. ca: whom it trusts. name: what it takes the worker for."""
    credentials = credentials_of(shown, ca)
    options = (("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.secure_channel(worker.address, credentials, options) as opened:
        yield opened


async def models(opened: grpc.aio.Channel, metadata: Metadata = ()) -> list[str]:
    stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
    listed = await stub.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE, metadata=metadata)
    return [model.id for model in listed.models]


async def failure(opened: grpc.aio.Channel, metadata: Metadata = ()) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await models(opened, metadata)
    return caught.value.code(), caught.value.details() or ""


def settings(shown: Files, client_ca: Path | None = None, **more: Any) -> dict[str, Any]:
    """Of a worker; client_ca: who signs its callers, which are then those of `LISTED`."""
    known = {"callers": LISTED} if client_ca else {}
    return {"tls": shown.server(client_ca), **known, **more}


async def test_who_shows_what(tmp_path: Path, authority: Authority) -> None:
    stranger = Authority(tmp_path, "stranger")
    config = settings(authority.issue(NAME), authority.ca)
    async with services.worker("echo", tmp_path, settings=config) as worker:
        for listed in (GATEWAY, "billing.test"):
            async with channel(worker, authority.issue(listed), authority.ca) as opened:
                assert "echo" in await models(opened)
        async with channel(worker, authority.issue("else.test"), authority.ca) as opened:
            assert await failure(opened) == (grpc.StatusCode.PERMISSION_DENIED, "else.test may not call.")
        assert "is refused: else.test may not call." in worker.new_log()
        refused: list[tuple[str, Files | None, Path, str]] = [
            ("none", None, authority.ca, NAME),
            ("of an authority that is not ours", stranger.issue(GATEWAY), authority.ca, NAME),
            ("expired", authority.issue(GATEWAY, expired=True), authority.ca, NAME),
            ("the caller trusts somebody else", authority.issue(GATEWAY), stranger.ca, NAME),
            ("the caller wants another name", authority.issue(GATEWAY), authority.ca, "other.test"),
        ]
        for why, shown, ca, name in refused:
            async with channel(worker, shown, ca, name) as opened:
                assert (await failure(opened))[0] is grpc.StatusCode.UNAVAILABLE, why
        async with grpc.aio.insecure_channel(worker.address) as opened:
            assert (await failure(opened))[0] is grpc.StatusCode.UNAVAILABLE


async def test_a_handshake_that_fails_is_in_the_log(tmp_path: Path, authority: Authority) -> None:
    config = settings(authority.issue(NAME), authority.ca)
    async with services.worker("echo", tmp_path, settings=config) as worker:
        async with channel(worker, authority.issue(GATEWAY, expired=True), authority.ca) as opened:
            assert (await failure(opened))[0] is grpc.StatusCode.UNAVAILABLE
        log = await worker.logged("a TLS handshake failed")
        assert 'where=worker.tls why="certificate has expired" times=1' in log


async def test_a_worker_whose_certificate_has_expired_is_not_believed(tmp_path: Path, authority: Authority) -> None:
    config = settings(authority.issue(NAME, expired=True))
    async with services.worker("echo", tmp_path, settings=config) as worker:
        async with channel(worker, None, authority.ca) as opened:
            code, details = await failure(opened)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "certificate has expired" in details


@pytest.mark.parametrize("encrypted", [False, True])
async def test_tokens(tmp_path: Path, authority: Authority, encrypted: bool) -> None:
    config: dict[str, Any] = {"callers": [{"name": "edge", "token_envs": ["NEW", "OLD"]}]}
    if encrypted:
        config["tls"] = authority.issue(NAME).server()
    environment = {"NEW": "the-new-token", "OLD": "the-old-token"}
    async with services.worker("echo", tmp_path, environment=environment, settings=config) as worker:
        opening = (
            channel(worker, None, authority.ca) if encrypted else grpc.aio.insecure_channel(worker.address)
        )
        async with opening as opened:
            for token in environment.values():
                assert "echo" in await models(opened, (("authorization", f"Bearer {token}"),))
            wrong: list[Metadata] = [
                (),
                (("authorization", "Bearer the-new-toke"),),
                (("authorization", "the-new-token"),),
                (("x-api-key", "the-new-token"),),
            ]
            for metadata in wrong:
                refused = (grpc.StatusCode.UNAUTHENTICATED, "The bearer token is missing or unknown.")
                assert await failure(opened, metadata) == refused
            # What gRPC's own checks ask, which can show no token; and what they cannot.
            health: Any = health_pb2_grpc.HealthStub(opened)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(opened)  # type: ignore[arg-type]
            question = reflection_pb2.ServerReflectionRequest(list_services="")
            # Nothing is asked: grpc.aio tells a write that the answer overtakes as its own error, INTERNAL.
            assert await stub.ServerReflectionInfo(timeout=PATIENCE).code() is grpc.StatusCode.UNAUTHENTICATED
            shown = (("authorization", "Bearer the-old-token"),)
            listed = stub.ServerReflectionInfo(iter([question]), timeout=PATIENCE, metadata=shown)
            assert (await anext(aiter(listed))).list_services_response.service
        log = worker.new_log()
    assert all(token not in log for token in environment.values())


async def test_a_refused_call_is_not_read(tmp_path: Path) -> None:
    """A request larger than may be at all ends as any other that shows no token: nobody has looked at it."""
    config = {"callers": [{"name": "edge", "token_envs": ["TOKEN"]}], "max_message_bytes": 1024}
    async with (
        services.worker("echo", tmp_path, environment={"TOKEN": "t"}, settings=config) as worker,
        grpc.aio.insecure_channel(worker.address) as opened,
    ):
        stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.Chat(ask("x" * 4096), timeout=PATIENCE)))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def ask(text: str = "Hello?") -> chat_pb2.ChatRequest:
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)
    return chat_pb2.ChatRequest(model="echo", messages=[message], stream=True)


def fields(line: str) -> Mapping[str, str]:
    """A line of the log as names and values."""
    return dict(pair.split("=", 1) for pair in line.split() if "=" in pair)


async def test_whose_word_counts(tmp_path: Path, authority: Authority) -> None:
    """Of accounts, sessions and clients only gateways may speak; everybody else calls for itself."""
    said = (("x-account-id", "acme"), ("x-session-id", "s1"), ("x-client-id", "c1"), ("x-request-id", "r1"))
    config = settings(authority.issue(NAME), authority.ca, log_calls="all")
    async with services.worker("echo", tmp_path, settings=config) as worker:
        for identity in (GATEWAY, "billing.test"):
            async with channel(worker, authority.issue(identity), authority.ca) as opened:
                stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
                async for _ in stub.Chat(ask(), timeout=PATIENCE, metadata=said):
                    pass
        log = ""
        async with asyncio.timeout(PATIENCE):
            while log.count("call caller=") < 2:
                await asyncio.sleep(0.02)
                log += worker.new_log()
    by_edge, by_billing = (fields(line) for line in log.splitlines() if "call caller=" in line)
    same = {"method": "Chat", "model": "echo", "status": "OK", "request_id": "r1", "estimated": "false"}
    assert same.items() <= by_edge.items()
    assert same.items() <= by_billing.items()
    assert int(by_billing["input_tokens"]) > 0
    assert int(by_billing["output_tokens"]) > 0
    names = ("caller", "account", "session", "client")
    assert [by_edge.get(name) for name in names] == ["edge", "acme", "s1", "c1"]
    assert [by_billing.get(name) for name in names] == ["billing", "", None, None]


@pytest.mark.parametrize(("logged", "lines"), [("direct", ["billing"]), ("all", ["edge", "billing"]), ("none", [])])
async def test_which_calls_have_a_line_in_the_log(tmp_path: Path, logged: str, lines: list[str]) -> None:
    callers = [
        {"name": "edge", "token_envs": ["EDGE"], "gateway": True},
        {"name": "billing", "token_envs": ["BILLING"]},
    ]
    environment = {"EDGE": "of-the-edge", "BILLING": "of-billing"}
    config = {"callers": callers, "log_calls": logged}
    async with services.worker("echo", tmp_path, environment=environment, settings=config) as worker:
        async with grpc.aio.insecure_channel(worker.address) as opened:
            for token in environment.values():
                stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
                async for _ in stub.Chat(ask(), timeout=PATIENCE, metadata=(("authorization", f"Bearer {token}"),)):
                    pass
        await worker.stop()
        log = worker.new_log()
    assert [fields(line)["caller"] for line in log.splitlines() if "call caller=" in line] == lines


async def test_the_usage_of_a_call_is_written_down_however_it_ends(tmp_path: Path) -> None:
    config = {"callers": [{"name": "billing", "token_envs": ["TOKEN"]}]}
    shown = (("authorization", "Bearer t"),)
    async with ScriptedUpstream() as upstream:
        upstreams = {"u": {"base_url": upstream.url, "retries": 0}}
        async with (
            services.worker("openai", tmp_path, upstreams, {"TOKEN": "t"}, settings=config) as worker,
            grpc.aio.insecure_channel(worker.address) as opened,
        ):
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
            upstream.will(Reply.json({"error": {"message": "no"}}, status=400))
            with pytest.raises(grpc.aio.AioRpcError):
                await anext(aiter(stub.Chat(ask(), timeout=PATIENCE, metadata=shown)))
            failed = await worker.logged("call caller=billing")
            assert "status=INVALID_ARGUMENT" in failed
            gate = Gate()
            upstream.will(Reply.sse(*text_stream(["Hel", "lo"])[:2], gate))
            call = stub.Chat(ask(), timeout=PATIENCE, metadata=shown)
            await anext(aiter(call))
            call.cancel()
            assert "status=CANCELLED" in await worker.logged("call caller=billing")
            gate.set()


async def test_a_new_certificate_counts_for_new_connections_and_open_streams_go_on(
    tmp_path: Path, authority: Authority
) -> None:
    served, successor = authority.issue(NAME), Authority(tmp_path, "successor")
    gate = Gate()
    role, one, *rest = text_stream(["one", " two"])
    async with ScriptedUpstream() as upstream:
        upstream.will(Reply.sse(role, one, gate, *rest))
        config = settings(served)
        upstreams = {"u": {"base_url": upstream.url, "models": ["m"]}}
        async with (
            services.worker("openai", tmp_path, upstreams, settings=config) as worker,
            channel(worker, None, authority.ca) as opened,
        ):
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(opened)
            responses = aiter(stub.Chat(ask(), timeout=PATIENCE))
            answer = AnswerFold()
            answer.feed((await anext(responses)).chunks)

            served.key.write_text("not a key")  # half of a change, or a wrong one: the old pair stays
            async with channel(worker, None, authority.ca) as early:
                assert await models(early) == ["m"]
            assert "refused, the old one stays" in worker.new_log()

            served.take(successor.issue(NAME))
            async with channel(worker, None, successor.ca) as late:
                assert await models(late) == ["m"]
            assert "the certificate has been read anew" in worker.new_log()
            async with channel(worker, None, authority.ca) as behind:
                assert (await failure(behind))[0] is grpc.StatusCode.UNAVAILABLE
            gate.set()
            async for response in responses:
                answer.feed(response.chunks)
            answer.close()
            assert (answer.choices[0].text, answer.whole) == ("one two", True)


async def test_a_mounted_secret(tmp_path: Path, authority: Authority) -> None:
    """Kubernetes swaps a link to a folder; authorities that callers may have change with it."""
    successor = Authority(tmp_path, "successor")
    mount = tmp_path / "mount"

    def put(version: str, shown: Files, client_ca: Path) -> None:
        folder = mount / version
        folder.mkdir(parents=True)
        for name, path in (("tls.crt", shown.certificate), ("tls.key", shown.key), ("ca.crt", client_ca)):
            (folder / name).write_bytes(path.read_bytes())
            if not (mount / name).is_symlink():
                (mount / name).symlink_to(f"..data/{name}")
        link = mount / "..tmp"
        link.symlink_to(version)
        link.replace(mount / "..data")

    put("..1", authority.issue(NAME), authority.ca)
    mounted = Files(mount / "tls.crt", mount / "tls.key", mount / "ca.crt")
    config = settings(mounted, mounted.ca)
    async with services.worker("echo", tmp_path, settings=config) as worker:
        async with channel(worker, authority.issue(GATEWAY), authority.ca) as opened:
            assert "echo" in await models(opened)
        put("..2", successor.issue(NAME), successor.ca)
        async with channel(worker, successor.issue(GATEWAY), successor.ca) as opened:
            assert "echo" in await models(opened)
        async with channel(worker, authority.issue(GATEWAY), successor.ca) as opened:
            assert (await failure(opened))[0] is grpc.StatusCode.UNAVAILABLE


async def test_probes_have_a_listener_of_their_own(tmp_path: Path, authority: Authority) -> None:
    config = settings(authority.issue(NAME), authority.ca, health=services.FREE_PORT)
    async with services.worker("echo", tmp_path, settings=config) as worker:
        address = await worker.other_address("health")
        probe = await asyncio.create_subprocess_exec(*services.run("worker"), "--probe", address, cwd=services.ROOT)
        assert await probe.wait() == 0
        async with grpc.aio.insecure_channel(address) as opened:
            assert (await failure(opened))[0] is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tls": {"certificate": "gone.crt", "key": "gone.key"}}, "worker.tls.certificate: gone.crt: No such file"),
        ({"callers": [{"name": "a", "token_envs": ["NOT_SET_HERE"]}]}, "NOT_SET_HERE is not set"),
    ],
)
@pytest.mark.parametrize("checking", [True, False])
async def test_what_cannot_be_used_is_said_at_the_start(
    tmp_path: Path, wrong: dict[str, Any], words: str, checking: bool
) -> None:
    command = ("worker", "echo", *(("--check",) if checking else ()))
    with pytest.raises(AssertionError, match=words):
        await services.start("wrong", *command, config={"worker": wrong}, folder=tmp_path)


async def test_a_key_of_another_certificate_is_refused(tmp_path: Path, authority: Authority) -> None:
    one, other = authority.issue(NAME), authority.issue(NAME)
    config = {"worker": {"tls": {"certificate": str(one.certificate), "key": str(other.key)}}}
    with pytest.raises(AssertionError, match=r"worker\.tls: .* are no certificate and its key"):
        await services.start("wrong", "worker", "echo", config=config, folder=tmp_path)

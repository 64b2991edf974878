"""Session events over gRPC, to clients of gRPC's own library."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.certificates import Authority, Files, credentials_of
from support.upstream import PATIENCE

from gateway.auth import Keyring, digest_of
from gateway.identity import EMBEDDINGS, Identity
from gateway.session_service import SERVICE, SessionListener, SessionServicer
from gateway.sessions import SessionHub, event_id
from gateway.settings import SessionSettings
from trestle import listening
from trestle.config import ConfigError
from trestle.errors import DETAILS_KEY, CallError, Reason
from trestle.rpc import connection as connections
from trestle.tls import ServerFiles, ServerTls
from trestle.v1 import session_pb2, session_service_pb2_grpc

Metadata = tuple[tuple[str, str], ...]
BEARER: Final = (("authorization", "Bearer the-key"),)
KEYS: Final[Mapping[bytes, Identity]] = {
    digest_of("the-key"): Identity("a", "one"),
    digest_of("other-key"): Identity("b", "two"),
    digest_of("no-chat"): Identity("a", "three", frozenset({EMBEDDINGS})),
}
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections that clients leave open are closed before the listener gives up."""
    monkeypatch.setattr(connections, "_LINGER", 0.05)
    monkeypatch.setattr(listening, "_TLS_TIMEOUTS", {"ssl_shutdown_timeout": 0.05})


@dataclass
class Served:
    """hub: what is told. channel: of a client of gRPC's own."""

    address: str
    hub: SessionHub
    listener: SessionListener
    channel: grpc.aio.Channel

    def watch(self, session: str = "s", metadata: Metadata = BEARER, after: str = "", **options: Any) -> Any:
        return watching(self.channel, session, metadata, after, **options)

    def tell(self, request: str, session: str = "s", account: str = "a") -> str:
        """Returns the event's id."""
        event = session_pb2.SessionEvent(request_id=request)
        self.hub.publish(account, session, event)
        return event.id

    async def first_after_others(self) -> str:
        """What is kept first of the session, once there have been so many others that it may be forgotten."""
        for other in ("t", "u", "v"):
            self.tell("2", other)
        self.tell("3")
        reading: Any = self.hub.read("a", "s", event_id(""))
        async with aclosing(reading):
            return str((await anext(reading))[0].request_id)


def watching(
    channel: grpc.aio.Channel, session: str = "s", metadata: Metadata = BEARER, after: str = "", **options: Any
) -> Any:
    stub: Any = session_service_pb2_grpc.SessionServiceStub(channel)
    request = session_pb2.WatchSessionRequest(session=session, after=after)
    return stub.WatchSession(request, metadata=metadata, timeout=options.pop("timeout", PATIENCE), **options)


@asynccontextmanager
async def serving(tls: ServerFiles | None = None) -> AsyncIterator[tuple[str, SessionHub, SessionListener]]:
    hub = SessionHub(SessionSettings(most=2))
    listener = SessionListener(SessionServicer(hub, lambda: Keyring(KEYS)))
    address = await listener.listen("127.0.0.1:0", tls)
    yield address, hub, listener
    await hub.close()
    await listener.close()


@pytest_asyncio.fixture
async def it() -> AsyncIterator[Served]:
    async with serving() as (address, hub, listener), grpc.aio.insecure_channel(address) as channel:
        yield Served(address, hub, listener, channel)


async def told(watch: Any, count: int) -> list[str]:
    """The requests of so many events."""
    return [(await anext(watch)).event.request_id for _ in range(count)]


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """How it ends that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value


@pytest.mark.parametrize("metadata", [BEARER, (("x-api-key", "the-key"),), (("authorization", "bearer  the-key "),)])
async def test_what_is_kept_and_what_happens(it: Served, metadata: Metadata) -> None:
    it.tell("1")
    it.tell("theirs", account="b")
    watch = aiter(it.watch(metadata=metadata))
    assert await told(watch, 1) == ["1"]
    it.tell("2")
    it.tell("elsewhere", session="t")
    last = it.tell("3")
    assert await told(watch, 2) == ["2", "3"]
    it.tell("4")
    assert await told(aiter(it.watch(metadata=metadata, after=last, compression=grpc.Compression.Gzip)), 1) == ["4"]


@pytest.mark.parametrize(
    ("session", "metadata", "after", "code", "reason", "words"),
    [
        ("s", (), "", grpc.StatusCode.UNAUTHENTICATED, Reason.UNAUTHENTICATED, "You did not provide an API key"),
        ("s", (("x-api-key", "no"),), "", grpc.StatusCode.UNAUTHENTICATED, Reason.UNAUTHENTICATED, "Incorrect API key"),
        ("s", (("x-api-key", "no-chat"),), "", grpc.StatusCode.PERMISSION_DENIED, Reason.PERMISSION_DENIED, "no scope"),
        ("", BEARER, "", grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_REQUEST, "it must be 1 to 128 characters"),
        ("s" * 129, BEARER, "", grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_REQUEST, "1 to 128 characters"),
        ("s", BEARER, "x", grpc.StatusCode.INVALID_ARGUMENT, Reason.INVALID_REQUEST, "Invalid event id"),
    ],
)
async def test_what_is_refused(
    it: Served, caplog: pytest.LogCaptureFixture, session: str, metadata: Metadata, after: str, code: Any,
    reason: Reason, words: str,
) -> None:  # fmt: skip
    caplog.set_level(logging.INFO)
    error = await failure(it.watch(session, (*metadata, ("x-request-id", "r1")), after))
    assert error.code() is code
    assert words in (error.details() or "")
    details = dict(error.trailing_metadata() or ())[DETAILS_KEY]
    assert isinstance(details, bytes)
    told = CallError.from_status(code.value[0], error.details() or "", details)
    assert (told.reason, words in told.message) == (reason, True)
    (line,) = [each for each in caplog.records if each.getMessage() == "a watch of a session is refused"]
    assert (line.__dict__["request_id"], line.__dict__["account"]) == ("r1", "")


@pytest.mark.parametrize("way", ["cancelled", "late", "hung up"])
async def test_nothing_is_held_for_who_listens_no_longer(it: Served, way: str) -> None:
    """A session is forgotten when there are too many, but for one that is listened to."""
    it.tell("1")
    watch = it.watch(timeout=1.5 if way == "late" else PATIENCE)
    assert await told(aiter(watch), 1) == ["1"]
    assert await it.first_after_others() == "1"
    if way == "late":
        assert (await failure(watch)).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    elif way == "cancelled":
        watch.cancel()
    else:
        await it.channel.close()
    async with asyncio.timeout(PATIENCE):
        while await it.first_after_others() == "1":  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.01)


async def test_who_listens_is_told_of_the_end(it: Served) -> None:
    it.tell("1")
    watch = aiter(it.watch())
    assert await told(watch, 1) == ["1"]
    health: Any = health_pb2_grpc.HealthStub(it.channel)
    checks = aiter(health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE))
    assert (await anext(checks)).status == SERVING
    await it.hub.close()
    closing = asyncio.create_task(it.listener.close())
    with pytest.raises(StopAsyncIteration):
        await anext(watch)
    assert (await anext(checks)).status == NOT_SERVING
    error = await failure(checks)
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "The gateway is stopping.")
    await closing


async def test_what_else_is_served(it: Served) -> None:
    health: Any = health_pb2_grpc.HealthStub(it.channel)
    for name in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
        assert answer.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="no"), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    for path in (f"/{SERVICE}/Other", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
        other: Any = it.channel.unary_stream(path)
        assert (await failure(other(b"", timeout=PATIENCE))).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_request_that_is_too_large(it: Served) -> None:
    error = await failure(it.watch("s" * (4 * 1024 * 1024)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.details() == "The request has 4194309 bytes, and may have 4194304."


async def test_an_address_that_is_taken(it: Served) -> None:
    other = SessionListener(SessionServicer(it.hub, lambda: Keyring(KEYS)))
    with pytest.raises(ConfigError, match=rf"gateway\.grpc: cannot listen on {it.address}: the port is taken"):
        await other.listen(it.address, None)


async def test_certificates_that_change(tmp_path: Path) -> None:
    """They count for the next connection; what is open goes on."""
    authority, successor = Authority(tmp_path), Authority(tmp_path, "successor")
    shown, clients = authority.issue("127.0.0.1"), tmp_path / "clients.pem"
    clients.write_bytes(authority.ca.read_bytes())
    files = ServerFiles("gateway.tls", ServerTls(**shown.server(clients)))
    async with serving(files) as (address, hub, _):

        def open_(own: Files | None, ca: Path) -> grpc.aio.Channel:
            return grpc.aio.secure_channel(address, credentials_of(own, ca))

        async def refused(channel: grpc.aio.Channel) -> bool:
            async with channel:
                return (await failure(watching(channel, after="x"))).code() is grpc.StatusCode.UNAVAILABLE

        first, second = authority.issue("a.test"), successor.issue("b.test")
        async with open_(first, authority.ca) as channel:
            watch = aiter(watching(channel))
            hub.publish("a", "s", session_pb2.SessionEvent(request_id="1"))
            assert await told(watch, 1) == ["1"]
            assert await refused(open_(None, authority.ca))
            assert await refused(open_(second, authority.ca))
            shown.take(successor.issue("127.0.0.1"))
            clients.write_bytes(successor.ca.read_bytes())
            assert not await refused(open_(second, successor.ca))
            assert await refused(open_(second, authority.ca))
            assert await refused(open_(first, successor.ca))
            hub.publish("a", "s", session_pb2.SessionEvent(request_id="2"))
            assert await told(watch, 1) == ["2"]

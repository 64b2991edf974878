"""One address: whether it serves, what is said when it does not, TLS. Real sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health, health_pb2
from support.certificates import Authority
from support.channels import (
    PATH,
    SERVICE,
    ask,
    echo,
    failure,
    grpc_server,
    opened,
    own_server,
    patient,
    soon,
    until_it_answers,
    until_it_fails,
)
from support.http2_server import DATA, NOT_SERVING, SERVING, Http2Server, frame, goaway, message, settings

from trestle.errors import CallError
from trestle.rpc.method import Method
from trestle.rpc.server import Server

UNAVAILABLE = 14


async def test_one_that_knows_no_health_is_taken_to_serve() -> None:
    async with grpc_server() as address, opened(address) as plain:
        assert await ask(plain) == [b"?", b"?"]


async def test_health_that_comes_and_goes() -> None:
    checks = health.aio.HealthServicer()
    async with grpc_server(checks=checks) as address, opened(address) as plain:
        words = f"{address} says that it does not serve"
        assert await failure(plain.call()) == (UNAVAILABLE, words), "nobody has told it of the service"
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await until_it_answers(plain)
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.NOT_SERVING)
        assert await until_it_fails(plain) == (UNAVAILABLE, words)
        await checks.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await until_it_answers(plain)


async def test_open_calls_go_on_where_one_says_that_it_does_not_serve() -> None:
    async with Http2Server() as server, opened(server.address) as plain:
        reading = asyncio.create_task(plain.call().read())
        peer = await server.accept()
        watch = await peer.healthy()
        asked = await peer.request()
        await peer.send(frame(DATA, 0, watch, message(NOT_SERVING)))
        await peer.settle()
        assert await failure(plain.call()) == (UNAVAILABLE, f"{server.address} says that it does not serve")
        await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        assert await soon(reading) is None


async def test_a_question_for_health_that_fails_is_asked_again() -> None:
    async with Http2Server() as server, opened(server.address) as plain:
        reading = asyncio.create_task(plain.call().read())
        peer = await server.accept()
        first = await peer.request()
        await peer.send(peer.headers(first.stream), frame(DATA, 0, first.stream, message(b"\x0a\xff")))
        with pytest.raises(CallError, match=r"cannot be read"):
            await soon(reading)
        again = await peer.request()
        await peer.send(peer.headers(again.stream), frame(DATA, 0, again.stream, message(SERVING)))
        await peer.settle()
        reading = asyncio.create_task(plain.call().read())
        asked = await peer.request()
        await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
        assert await soon(reading) is None


@pytest.mark.parametrize(
    "greeting", [settings({}), settings({}) + goaway(0), settings({}) + goaway(0, 11), b"", b"HTTP/1.1 400 Bad"]
)
async def test_one_that_hangs_up_at_once_is_not_there(greeting: bytes) -> None:
    """Its calls end, and it is not asked again and again without a pause."""
    async with Http2Server() as server, opened(server.address) as plain:
        reading = asyncio.create_task(plain.call().read())
        for _ in range(2):
            peer = await server.bare()
            await peer.greeted()
            await peer.send(greeting)
            peer.close()
        with pytest.raises(CallError) as caught:
            await soon(reading)
        assert caught.value.status == UNAVAILABLE
        assert caught.value.message.startswith(f"{server.address}: ")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(files: Any, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    return context


def trusting(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.set_alpn_protocols(["h2"])
    return context


@asynccontextmanager
async def encrypted(context: ssl.SSLContext, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    server = Server()
    server.add({PATH: Method(echo, bytes, bytes)})
    yield await server.listen("test", address, context)
    await server.stop(0)


async def test_tls(authority: Authority, tmp_path: Path) -> None:
    data = bytes(300_000)
    context = trusting(authority.ca)
    async with encrypted(serving(authority.issue("127.0.0.1"))) as address, opened(address, context=context) as plain:
        assert await ask(plain, data) == [data] * 2
    async with (
        encrypted(serving(authority.issue("other.test"))) as address,
        opened(address, context=context, tls_name="other.test") as plain,
    ):
        assert await ask(plain, data) == [data] * 2
    async with (
        encrypted(serving(authority.issue("localhost")), f"unix:{tmp_path}/w.sock") as address,
        opened(address, context=context) as plain,
    ):
        assert await ask(plain, data) == [data] * 2


async def test_what_is_said_where_tls_does_not_come_about(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    good = authority.issue("127.0.0.1")
    believed = "its certificate is not believed: "
    for shown, words in (
        (stranger.issue("127.0.0.1"), believed + "unable to get local issuer certificate"),
        (authority.issue("other.test"), believed + "IP address mismatch, certificate is not valid for '127.0.0.1'."),
        (authority.issue("127.0.0.1", expired=True), believed + "certificate has expired"),
    ):
        async with encrypted(serving(shown)) as address, opened(address, context=trusting(authority.ca)) as plain:
            assert await failure(plain.call()) == (UNAVAILABLE, f"{address}: {words}")
    async with own_server() as address, opened(address, context=trusting(authority.ca)) as plain:
        status, words = await failure(plain.call())
        assert status == UNAVAILABLE
        assert words.startswith(f"{address}: TLS failed, if it speaks it there at all: ")
    async with encrypted(serving(good)) as address, opened(address) as plain:
        status, words = await failure(plain.call())
        assert status == UNAVAILABLE
        assert "does it ask for TLS?" in words
    async with (
        encrypted(serving(good, authority.ca)) as address,
        opened(address, context=trusting(authority.ca)) as plain,
    ):
        status, words = await failure(plain.call())
        assert status == UNAVAILABLE
        assert "certificate" in words


async def test_a_connection_over_tls_that_ends_leaves_nothing(authority: Authority) -> None:
    async with (
        Http2Server(context=serving(authority.issue("127.0.0.1"))) as server,
        opened(server.address, context=trusting(authority.ca)) as plain,
    ):
        for _ in range(3):
            reading = asyncio.create_task(patient(plain))
            peer = await server.serving()
            asked = await peer.request()
            await peer.send(peer.headers(asked.stream), peer.status(asked.stream))
            assert await soon(reading) is None
            peer.reset()
        await server.serving()
        assert len(plain.channel.connections) == 1

"""A server's listeners and connections: how old they become, what becomes of those that say nothing, how they end."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from support.certificates import Authority, credentials_of
from support.http2 import Frame, Peer, connected
from support.rpc import COUNT, ECHO, HOLD, Service, serving
from support.upstream import PATIENCE

from trestle.config import ConfigError
from trestle.http2 import frames
from trestle.http2.frames import GOAWAY, LARGEST_WINDOW, PING, rst_stream, window_update
from trestle.rpc import connection as connections
from trestle.rpc import server as module
from trestle.rpc.connection import ServerConnection
from trestle.rpc.server import Server

UNAVAILABLE = (14, "The test is stopping.")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LINGER", 0.05)


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[str, Service, Server]]:
    async with serving() as served:
        yield served


def last_of(goaway: Frame) -> int:
    return int.from_bytes(goaway.payload[:4], "big")


class TestStop:
    async def test_with_nobody_there(self, served: tuple[str, Service, Server]) -> None:
        address, _, server = served
        async with asyncio.timeout(PATIENCE):
            await server.stop(1000)
        with pytest.raises(ConnectionRefusedError):
            async with connected(address):
                pass

    async def test_waits_for_open_calls(self, served: tuple[str, Service, Server]) -> None:
        """Also where there were connections that have gone before."""
        address, service, server = served
        async with connected(address, {}) as peer:
            await peer.send(frames.goaway(0, 0))
            peer.writer.write_eof()
            await peer.ended()
        async with connected(address, {}) as peer, connected(address, {}) as idle:
            await peer.send(peer.call(1, HOLD))
            await service.until(begun=1)
            stopping = asyncio.create_task(server.stop(1000))
            goaway = await peer.find(GOAWAY)
            assert (last_of(goaway), goaway.code) == (1, frames.NO_ERROR)
            assert [each.kind for each in await idle.ended()] == [GOAWAY]
            await peer.send(peer.headers(3, ECHO, end=True))
            assert (await peer.answer(3)).reset == frames.REFUSED_STREAM
            await asyncio.sleep(0.1)  # though who has no calls any more is gone
            assert not stopping.done()
            await peer.send(rst_stream(1, frames.CANCEL))
            assert await peer.ended() == []
            await asyncio.wait_for(stopping, PATIENCE)

    async def test_leaves_clients_time_to_hear_of_it(
        self, served: tuple[str, Service, Server], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that crosses the last word on its way is refused, and not reset with the connection."""
        monkeypatch.setattr(connections, "_LINGER", PATIENCE)
        address, _, server = served
        async with connected(address, {}) as peer:
            stopping = asyncio.create_task(server.stop(1000))
            assert last_of(await peer.find(GOAWAY)) == 0
            await peer.send(peer.headers(1, ECHO, end=True))
            assert (await peer.answer(1)).reset == frames.REFUSED_STREAM
            peer.writer.close()
            await asyncio.wait_for(stopping, PATIENCE)

    async def test_no_longer_than_it_may(self, served: tuple[str, Service, Server]) -> None:
        address, service, server = served
        async with connected(address, {frames.INITIAL_WINDOW_SIZE: 10}) as peer:
            await peer.send(peer.call(1, HOLD), peer.call(3, COUNT, b"2 20"))
            await service.until(begun=2)
            await peer.find(frames.DATA, 3)
            stopping = asyncio.create_task(server.stop(1000))
            await peer.find(GOAWAY)
            await server.stop(0)  # somebody has less patience
            await asyncio.wait_for(stopping, PATIENCE)
            assert (await peer.answer(1)).status == UNAVAILABLE
            assert (await peer.answer(3)).reset == frames.CANCEL
            assert await peer.ended() == []
        await service.until(cancelled=2, running=0)

    async def test_no_longer_than_it_may_for_who_reads_nothing(self, served: tuple[str, Service, Server]) -> None:
        address, service, server = served
        async with connected(address, {frames.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}) as peer:
            await peer.send(window_update(0, LARGEST_WINDOW - 65_535), peer.call(1, COUNT, b"2 50000000"))
            await service.until(begun=1)
            stopping = asyncio.create_task(server.stop(1000))
            await asyncio.sleep(0)
            await server.stop(0)
            await asyncio.wait_for(stopping, PATIENCE)

    async def test_of_a_connection_that_is_on_its_way(self, tmp_path: Path) -> None:
        """It has been taken, and its handshake is still to come."""
        authority = Authority(tmp_path)
        files = authority.issue("localhost")
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        trusting.check_hostname = False
        async with serving(context) as (address, _, server):
            host, _, port = address.rpartition(":")
            async with connected(address, {}, context=trusting) as first:
                reader, writer = await asyncio.open_connection(host, int(port))
                await first.pong()  # by now the other one is taken as well
                await server.stop(0.01)
                await writer.start_tls(trusting)
                late = Peer(reader, writer, None)
                assert [each.kind for each in await late.ended()][-1] == GOAWAY


class TestAge:
    async def test_calls_that_have_just_begun_are_served(self) -> None:
        async with serving(max_age=0.01) as (address, service, _), connected(address, {}) as peer:
            await peer.send(peer.call(1, HOLD))
            assert last_of(await peer.find(GOAWAY)) == LARGEST_WINDOW
            ping = await peer.find(PING)
            await peer.send(peer.call(3, ECHO, b"a"))
            assert (await peer.answer(3)).messages == [b"a"]
            await peer.send(frames.frame(PING, frames.ACK, 0, ping.payload))
            assert last_of(await peer.find(GOAWAY)) == 3
            await peer.send(peer.headers(5, ECHO, end=True))
            assert (await peer.answer(5)).reset == frames.REFUSED_STREAM
            await service.until(begun=1)
            await peer.send(rst_stream(1, frames.CANCEL))
            assert await peer.ended() == []

    async def test_a_client_that_does_not_hear_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_PING_BACK", 0.01)
        async with serving(max_age=0.01, max_age_grace=0.01) as (address, service, _):
            async with connected(address, {}) as peer:
                await peer.send(peer.call(1, HOLD))
                assert [last_of(await peer.find(GOAWAY)) for _ in range(2)] == [LARGEST_WINDOW, 1]
                assert (await peer.answer(1)).status == UNAVAILABLE
                assert await peer.ended() == []
            await service.until(running=0)


class TestSilence:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_LOOK", 0.05)

    async def test_a_client_is_asked_for_a_sign(self, served: tuple[str, Service, Server]) -> None:
        async with connected(served[0], {}) as peer:
            for _ in range(3):
                ping = await peer.find(PING)
                assert ping.flags == 0
                await peer.send(frames.frame(PING, frames.ACK, 0, ping.payload))
            await peer.send(peer.call(1, ECHO))
            assert (await peer.answer(1)).status == (0, "")

    async def test_one_that_gives_none_is_gone(self, served: tuple[str, Service, Server]) -> None:
        address, service, _ = served
        async with connected(address, {}) as peer:
            await peer.send(peer.call(1, HOLD))
            await service.until(begun=1)
            assert [each.kind for each in await peer.ended()] == [PING]
        await service.until(cancelled=1)

    @pytest.mark.parametrize("sent", [b"", frames.PREFACE[:7], frames.PREFACE])
    async def test_one_that_never_says_who_it_is(self, sent: bytes, served: tuple[str, Service, Server]) -> None:
        async with connected(served[0]) as peer:
            await peer.send(sent)
            assert [each.kind for each in await peer.ended()] == [frames.SETTINGS, frames.WINDOW_UPDATE]

    async def test_one_that_reads_nothing(self, served: tuple[str, Service, Server]) -> None:
        address, service, _ = served
        wide = {frames.INITIAL_WINDOW_SIZE: LARGEST_WINDOW}
        async with connected(address, wide) as peer:
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await peer.send(window_update(0, 1 << 30), peer.call(1, COUNT, b"1000 1000000"))
            await service.until(cancelled=1, running=0)
            assert service.written < 100


async def test_nothing_is_left_of_connections_that_have_gone(served: tuple[str, Service, Server]) -> None:
    address, service, server = served
    for _ in range(20):
        async with connected(address, {}) as peer:
            await peer.send(peer.call(1, HOLD), peer.call(3, ECHO))
            await peer.answer(3)
    await service.until(begun=20, cancelled=20, running=0)
    await server.stop(PATIENCE)
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, ServerConnection)]


async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    service, server = Service(), Server()
    server.add(service.methods())
    address = f"unix:{tmp_path}/socket"
    assert await server.listen("listen", address) == address
    async with grpc.aio.insecure_channel(address) as channel:
        echo: Any = channel.unary_unary(ECHO)
        assert await echo(b"a", timeout=PATIENCE) == b"a"
    await server.stop(PATIENCE)


async def test_an_address_that_is_taken(served: tuple[str, Service, Server]) -> None:
    with pytest.raises(ConfigError, match=r"test\.listen: cannot listen on 127\.0\.0\.1:"):
        await Server().listen("test.listen", served[0])


async def test_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("localhost", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    context.set_alpn_protocols(["h2"])
    async with serving(context) as (address, service, _):
        async with grpc.aio.secure_channel(address, credentials_of(None, authority.ca)) as channel:
            echo: Any = channel.unary_unary(ECHO)
            large = bytes(1_000_000)
            assert await echo(large, timeout=PATIENCE) == large
            hold: Any = channel.unary_unary(HOLD)
            call = hold(b"", timeout=PATIENCE)
            await service.until(begun=1)
            call.cancel()
            await service.until(cancelled=1)
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        async with connected(address, {}, context=trusting) as peer:
            await peer.send(peer.call(1, HOLD), frames.frame(frames.DATA, 0, 0), peer.call(3, HOLD))
            assert await peer.goaway() == frames.PROTOCOL_ERROR
        await service.until(cancelled=2, begun=2, running=0)

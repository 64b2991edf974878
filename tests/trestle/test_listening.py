"""Who comes is taken, however many come at once."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from support.certificates import Authority
from support.upstream import PATIENCE

from trestle.config import ConfigError
from trestle.listening import Listening

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Counted(asyncio.Protocol):
    """Says hello."""

    def __init__(self, came: list[asyncio.Transport]) -> None:
        self._came = came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        made = cast("asyncio.Transport", transport)
        self._came.append(made)
        made.write(b"hello")


def connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_all_that_wait_are_taken_within_a_few_turns_of_the_loop(
    host: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def run() -> None:
        came: list[asyncio.Transport] = []
        listening = Listening(lambda: Counted(came), None)
        address = await listening.open("listen", f"{host}:0")
        assert address.rpartition(":")[0] == host
        with ExitStack() as stack:
            clients = [stack.enter_context(connected(address)) for _ in range(50)]
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(came) == 50
            for client in clients:
                assert await asyncio.to_thread(client.recv, 5) == b"hello"
            # Small writes leave at once.
            sockets = [transport.get_extra_info("socket") for transport in came]
            assert all(each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for each in sockets)
            for transport in came:
                transport.close()
            await listening.close()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                connected(address)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("loop", LOOPS)
def test_the_kernel_holds_little_for_who_does_not_read(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Left to itself it takes some megabytes for each, which count as the service's memory in a container."""
    much = b"x" * 8_000_000

    async def run() -> None:
        came: list[asyncio.Transport] = []
        listening = Listening(lambda: Counted(came), None)
        with connected(await listening.open("listen", "127.0.0.1:0")) as client:
            assert await asyncio.to_thread(client.recv, 5) == b"hello"
            came[0].write(much)
            for _ in range(10):
                await asyncio.sleep(0)
            taken = len(much) - came[0].get_write_buffer_size()
            came[0].close()
            assert await asyncio.to_thread(lambda: b"".join(iter(lambda: client.recv(1_000_000), b""))) == much
        await listening.close()
        # What is not sent yet, and what the client's side of loopback takes.
        assert 0 < taken < 1_000_000

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


@pytest.mark.parametrize("loop", LOOPS)
def test_with_tls_who_does_not_speak_it_is_in_nobodys_way(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    files = Authority(tmp_path).issue("127.0.0.1")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(files.certificate, files.key)
    asking = ssl.create_default_context(cafile=str(files.ca))

    def greeted(client: socket.socket) -> bytes:
        with asking.wrap_socket(client, server_hostname="127.0.0.1") as speaking:
            return speaking.recv(5)

    async def run() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
        came: list[asyncio.Transport] = []
        listening = Listening(lambda: Counted(came), serving)
        address = await listening.open("listen", "127.0.0.1:0")
        with ExitStack() as stack:
            clients = [stack.enter_context(connected(address)) for _ in range(20)]
            for client in clients[::2]:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            answers = [await asyncio.to_thread(greeted, client) for client in clients[1::2]]
            refused = [await asyncio.to_thread(client.recv, 100) for client in clients[::2]]
        assert answers == [b"hello"] * 10
        assert all(b"hello" not in answer for answer in refused)
        for transport in came:
            transport.close()
        await listening.close()
        return told

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == []


async def test_a_place_that_is_taken_is_left_as_it_is() -> None:
    """Though others behind the same name are free."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"gateway.listen: cannot listen on localhost:{port}: the port is taken"):
            await Listening(lambda: Counted([]), None).open("gateway.listen", f"localhost:{port}")
    await asyncio.sleep(0)
    again = Listening(lambda: Counted([]), None)
    assert await again.open("gateway.listen", f"localhost:{port}") == f"localhost:{port}"
    await again.close()

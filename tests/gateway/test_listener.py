"""One address served over HTTP, at its end."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import uvloop
from aiohttp import web
from support.upstream import PATIENCE

from gateway.listener import Bounds, Listener
from gateway.reply import Reply

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


LARGE = b"x" * 4_000_000


async def answer(http: web.BaseRequest) -> Reply:
    return Reply(http, {}, b"hello")


def heard(client: socket.socket) -> bytes:
    """All that it is told before the connection ends."""
    return b"".join(iter(lambda: client.recv(1000), b""))


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_still_waits_to_be_taken_is_answered_at_the_end(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A client is connected as soon as the kernel says so. When a listener closes, the kernel resets those whom nobody
    has taken; while a loop is busy that may be many."""

    async def run() -> None:
        listener = Listener(answer, Bounds(8192, 1000, 10.0, 10.0, 1.0))
        host, _, port = (await listener.listen("listen", "127.0.0.1:0")).rpartition(":")
        with ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection((host, int(port)), PATIENCE)) for _ in range(100)
            ]
            for client in clients:
                client.sendall(REQUEST)
            await listener.close()
            answers = [await asyncio.to_thread(heard, client) for client in clients]
        assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [b"hello"] * 100

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def answer_at_length(http: web.BaseRequest) -> Reply:
    return Reply(http, {}, LARGE)


def heard_slowly(address: str) -> bytes:
    """What a client is told that takes a thousand bytes each twentieth of a second for a while, and then the rest."""
    host, _, port = address.rpartition(":")
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect((host, int(port)))
        client.sendall(REQUEST.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        pieces = []
        try:
            for _ in range(40):
                pieces.append(client.recv(1000))
                time.sleep(0.05)
            pieces.extend(iter(lambda: client.recv(1_000_000), b""))
        except ConnectionResetError:
            pass  # what came is compared
        return b"".join(pieces)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_reads_slowly_is_not_cut_off_as_one_who_reads_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The kernel takes more of an answer only when it has room for much: later than a client may read nothing."""

    async def run() -> bytes:
        listener = Listener(answer_at_length, Bounds(8192, 1000, 10.0, 0.3, 1.0))
        address = await listener.listen("listen", "127.0.0.1:0")
        told = await asyncio.to_thread(heard_slowly, address)
        await listener.close()
        return told

    with asyncio.Runner(loop_factory=loop) as runner:
        told = runner.run(run())
    assert len(told.partition(b"\r\n\r\n")[2]) == len(LARGE)

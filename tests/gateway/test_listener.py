"""One address served over HTTP, at its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest
import uvloop
from aiohttp import web
from support.upstream import PATIENCE

from gateway.listener import Bounds, Listener
from gateway.reply import Reply

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


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

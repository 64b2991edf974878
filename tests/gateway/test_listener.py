"""One address served over HTTP: its end, and clients that read slowly or nothing."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from aiohttp import web
from support.certificates import Authority
from support.upstream import PATIENCE

from gateway.listener import Bounds, Listener
from gateway.reply import Reply

REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
LAST_REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
LARGE = b"x" * 4_000_000
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


async def answer(http: web.BaseRequest) -> Reply:
    return Reply(http, {}, b"hello")


def heard(client: socket.socket) -> bytes:
    """All that it is told before the connection ends."""
    return b"".join(iter(lambda: client.recv(1000), b""))


@pytest.mark.parametrize("loop", LOOPS)
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


def asking(address: str, request: bytes, context: ssl.SSLContext | None = None) -> socket.socket:
    """A client that has asked. Its kernel takes little that it has not read. context: of TLS; None: in the clear."""
    host, _, port = address.rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect((host, int(port)))
    if context is not None:
        client = context.wrap_socket(client, server_hostname=host)
    client.sendall(request)
    return client


STALL = 1234.5
"""Seconds for which a client may read nothing, here."""


class Turned(asyncio.AbstractEventLoop):
    """A loop in which what is to be called in `STALL` seconds is called when the test says so, however busy the machine
    is."""

    def __init__(self) -> None:
        super().__init__()
        self.due: list[tuple[asyncio.TimerHandle, Callable[[], object]]] = []

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """As any loop's."""
        handle = super().call_later(delay, callback, *args, context=context)
        if delay == STALL:
            self.due.append((handle, partial(callback, *args)))
        return handle

    def turn(self) -> int:
        """Calls what is due, as though `STALL` seconds had passed. Returns how much that was."""
        due = [call for handle, call in self.due if not handle.cancelled()]
        self.due.clear()
        for call in due:
            call()
        return len(due)


class TurnedAsyncio(Turned, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """asyncio's."""


class TurnedUvloop(Turned, uvloop.Loop):  # type: ignore[misc]  # its stubs differ from asyncio's
    """uvloop's."""


async def heard_slowly(loop: Turned, client: socket.socket) -> bytes:
    """What a client is told that has read a little whenever the gateway looks, more than its own kernel keeps for it,
    and then the rest."""
    pieces = []
    for _ in range(40):
        pieces.extend([await loop.sock_recv(client, 1000) for _ in range(10)])
        assert loop.turn() == 1
    while piece := await loop.sock_recv(client, 1_000_000):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("loop", [TurnedAsyncio, TurnedUvloop])
def test_who_reads_slowly_is_not_cut_off_as_one_who_reads_nothing(loop: Callable[[], Turned]) -> None:
    """The kernel takes more of an answer only when it has room for much: later than a client may read nothing."""

    async def run() -> bytes:
        turned = cast("Turned", asyncio.get_running_loop())
        listener = Listener(answer_at_length, Bounds(8192, 1000, 10.0, STALL, 1.0))
        address = await listener.listen("listen", "127.0.0.1:0")
        with await asyncio.to_thread(asking, address, LAST_REQUEST) as client:
            client.setblocking(False)
            try:
                return await heard_slowly(turned, client)
            finally:
                client.close()
                await listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        told = runner.run(run())
    assert len(told.partition(b"\r\n\r\n")[2]) == len(LARGE)


SIZES = range(160_000, 280_000, 20_000)
"""Bytes of answers, of which the kernel takes the first 128 KB and some more at once."""


class Sized:
    """Answers with these sizes, one after the other. all: set once each of them was asked for."""

    def __init__(self) -> None:
        self._sizes = list(SIZES)
        self.all = asyncio.Event()

    async def __call__(self, http: web.BaseRequest) -> Reply:
        size = self._sizes.pop()
        if not self._sizes:
            self.all.set()
        return Reply(http, {}, b"x" * size)


def ended(client: socket.socket) -> bool:
    """Whether the connection of a client that reads nothing was reset; waits until it is."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(PATIENCE * 1000))


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "tls"])
@pytest.mark.parametrize("loop", LOOPS)
def test_what_is_written_at_the_end_arrives(
    loop: Callable[[], asyncio.AbstractEventLoop], tls: bool, tmp_path: Path
) -> None:
    """Though the client reads only when the listener has begun to close, and the loop ends once it has."""
    answer = Sized()
    serving = context = None
    if tls:
        files = Authority(tmp_path).issue("127.0.0.1")
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.load_cert_chain(files.certificate, files.key)
        context = ssl.create_default_context(cafile=str(files.ca))

    async def run(stack: ExitStack) -> None:
        listener = Listener(answer, Bounds(8192, 1000, 10.0, 10.0, 10.0), serving)
        address = await listener.listen("listen", "127.0.0.1:0")
        clients = [
            stack.enter_context(await asyncio.to_thread(asking, address, REQUEST, context)) for _ in SIZES
        ]
        await answer.all.wait()
        closing = asyncio.ensure_future(listener.close())
        await asyncio.sleep(0)
        told.extend(stack.enter_context(ThreadPoolExecutor(len(clients))).submit(heard, each) for each in clients)
        await closing

    told: list[Future[bytes]] = []
    with ExitStack() as stack:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(run(stack))
        assert sorted(len(each.result().partition(b"\r\n\r\n")[2]) for each in told) == list(SIZES)


@pytest.mark.parametrize("request_", [REQUEST, LAST_REQUEST], ids=["kept open", "closed"])
@pytest.mark.parametrize("loop", LOOPS)
def test_who_reads_nothing_is_cut_off_whatever_the_size(
    loop: Callable[[], asyncio.AbstractEventLoop], request_: bytes
) -> None:
    """And whether the connection would be kept afterwards or not."""
    async def run() -> None:
        listener = Listener(Sized(), Bounds(8192, 1000, 0.2, 0.2, 10.0))
        address = await listener.listen("listen", "127.0.0.1:0")
        with ExitStack() as stack:
            clients = [stack.enter_context(asking(address, request_)) for _ in SIZES]
            for client in clients:
                assert await asyncio.to_thread(ended, client)
        await listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())

"""A server of gRPC in this process, with methods that do what a test needs: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
from support.upstream import PATIENCE

from trestle.rpc.call import Call
from trestle.rpc.method import Method
from trestle.rpc.server import Server

_NAMES: Final = ("Echo", "Count", "Hold", "Join", "Fail", "Tell")
ECHO, COUNT, HOLD, JOIN, FAIL, TELL = (f"/test.Test/{name}" for name in _NAMES)
UNREADABLE: Final = b"unreadable"


class Service:
    """begun: how many calls of `Hold`, `Join` and `Count` have; running: how many of them still are; cancelled: of how
    many the method was. written: how many responses `Count` could write. metadata: the last call's of `Tell`. changed:
    whenever one of these does."""

    def __init__(self) -> None:
        self.running = 0
        self.begun = 0
        self.cancelled = 0
        self.written = 0
        self.metadata: tuple[tuple[str, str | bytes], ...] = ()
        self.changed = asyncio.Condition()

    def methods(self) -> dict[str, Method]:
        """By their paths."""
        unary = {ECHO: self._echo, COUNT: self._count, HOLD: self._hold, FAIL: self._fail, TELL: self._tell}
        methods = {path: Method(run, _read, bytes) for path, run in unary.items()}
        return {**methods, JOIN: Method(self._join, _read, bytes, streams_in=True)}

    async def until(self, **values: int) -> None:
        """Returns once these are so."""
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(lambda: all(getattr(self, name) == value for name, value in values.items()))

    async def _add(self, name: str, more: int = 1) -> None:
        async with self.changed:
            setattr(self, name, getattr(self, name) + more)
            self.changed.notify_all()

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[None]:
        await self._add("begun")
        await self._add("running")
        try:
            yield
        except asyncio.CancelledError:
            await self._add("cancelled")
            raise
        finally:
            await self._add("running", -1)

    async def _echo(self, request: bytes, call: Call) -> bytes:
        """The request."""
        return request

    async def _count(self, request: bytes, call: Call) -> bytes:
        """As many responses of such a size: `COUNT SIZE`."""
        count, size = map(int, request.split())
        response = bytes(size)
        async with self._begun():
            for _ in range(count - 1):
                await call.write(response)
                await self._add("written")
        return response

    async def _hold(self, request: bytes, call: Call) -> None:
        """Nothing, until it is cancelled."""
        async with self._begun():
            await asyncio.Event().wait()

    async def _join(self, requests: Any, call: Call) -> AsyncIterator[bytes]:
        """Each request as it comes."""
        async with self._begun():
            async for request in requests:
                yield request

    async def _fail(self, request: bytes, call: Call) -> bytes:
        """What the request says: `NAME OF A CODE`, or an error of Python's."""
        if request == b"raise":
            raise ZeroDivisionError
        if request == b"trailers":
            await call.abort(grpc.StatusCode.ABORTED, "no", (("x-name", "not ASCII: \xe9"),))
        if request == b"metadata":
            await call.send_initial_metadata((("x-name", "not ASCII: \xe9"),))
        await call.abort(grpc.StatusCode[request.decode()], "Grüße: 100% \n", (("x-name", "a"), ("x-bin", b"\0\xff")))

    async def _tell(self, request: bytes, call: Call) -> bytes:
        """Keeps the metadata; returns the seconds that are left."""
        self.metadata = call.metadata
        await call.send_initial_metadata((("x-begun", "yes"), ("x-begun-bin", b"\0\1")))
        return str(call.time_remaining()).encode()


def open_calls() -> list[Call]:
    """Those that are still in this process's memory."""
    gc.collect()
    return [each for each in gc.get_objects() if isinstance(each, Call)]


def _read(request: bytes) -> bytes:
    if request == UNREADABLE:
        raise ValueError
    return request


@asynccontextmanager
async def serving(
    context: ssl.SSLContext | None = None, **options: Any
) -> AsyncIterator[tuple[str, Service, Server]]:
    """Its address, its methods, itself. options: of `Server`."""
    service, server = Service(), Server(name="test", **options)
    server.add(service.methods())
    address = await server.listen("listen", "127.0.0.1:0", context)
    try:
        yield address, service, server
    finally:
        await server.stop(0)
        # One whose client has read nothing holds what it was sent, and the loop may end before it sees the client gone.
        for connection in tuple(server._connections):  # noqa: SLF001
            connection.transport.abort()
        while server._connections:  # noqa: ASYNC110, SLF001 (one turn, not a wait)
            await asyncio.sleep(0)

"""Where a service listens, and how who comes is taken: all that wait, not one in a turn of the loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final

from trestle.config import cannot_listen

_BACKLOG: Final = 4096
"""Connections that may wait to be taken: all clients come at once after a restart, and go on to come while the process
has no CPU. Linux lets net.core.somaxconn wait at most; others it drops without a word."""
_AT_ONCE: Final = 64
"""Connections that are taken in one turn of the loop, at most: who is there already is to have a turn, too."""
_UNSENT: Final = 128 * 1024
"""Bytes that the kernel takes for a peer beside what is on its way. Left to itself it takes some megabytes for each who
does not read: memory that a container pays for, and an answer that counts as read."""
_TLS_TIMEOUTS: Final = {"ssl_handshake_timeout": 20.0, "ssl_shutdown_timeout": 1.0}
"""Seconds that a client may take to say who it is, and goodbye."""
_LAST: Final = 1.0
"""Seconds for the handshakes of who was taken at the end."""


class Listening:
    """One address, once it is opened. made: makes a connection's protocol. context: of TLS; None: in the clear. Make it
    inside a running loop."""

    def __init__(self, made: Callable[[], asyncio.Protocol], context: ssl.SSLContext | None) -> None:
        self._made = made
        self._options: dict[str, Any] = {"ssl": context, **({} if context is None else _TLS_TIMEOUTS)}
        self._loop = asyncio.get_running_loop()
        self._servers: list[tuple[asyncio.Server, socket.socket | None]] = []
        self._coming: set[asyncio.Task[None]] = set()

    async def open(self, name: str, address: str, *, reuse_port: bool = False) -> str:
        """Listens from now on. name: of the setting that says the address. address: `HOST:PORT` or `unix:PATH`;
        returned as it turned out. reuse_port: others may listen there, too. Raises `ConfigError`."""
        try:
            if address.startswith("unix:"):  # where few come, whom the loop takes one by one
                path = address.removeprefix("unix:")
                server = await self._loop.create_unix_server(self._made, path, backlog=_BACKLOG, **self._options)
                self._servers.append((server, None))
                return address
            host, _, port = address.rpartition(":")
            return f"{host}:{await self._open(host.strip('[]'), int(port), reuse_port)}"
        except OSError as error:
            await self.close()
            raise cannot_listen(name, address, error) from None

    async def close(self) -> None:
        """Nobody else may come. Who is there stays, and who waits is taken: the kernel, which has connected it already,
        would reset it with what it has sent."""
        while self._servers:
            server, listener = self._servers.pop()
            if listener is not None:
                self._take_who_waits(listener, _BACKLOG)
            server.close()
        if self._coming:
            await asyncio.wait(self._coming, timeout=_LAST)

    async def _open(self, host: str, port: int, reuse_port: bool) -> int:
        """Returns the port of the first place behind the name."""
        found = await self._loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, place in dict.fromkeys((family, place) for family, _, _, _, place in found):
            listener = socket.create_server(place, family=family, backlog=_BACKLOG, reuse_port=reuse_port)
            listener.setblocking(False)
            # Its connections have these from it.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT)
            server = await self._loop.create_server(
                self._came_to(listener), sock=listener, backlog=_BACKLOG, **self._options
            )
            self._servers.append((server, listener))
        return int(self._servers[0][0].sockets[0].getsockname()[1])

    def _came_to(self, listener: socket.socket) -> Callable[[], asyncio.Protocol]:
        """Makes the protocol of who was taken by the loop, and takes the others. uvloop takes one connection a turn,
        and where open ones keep it busy, so that a turn is long, new clients would wait for seconds."""

        def came() -> asyncio.Protocol:
            self._take_who_waits(listener, _AT_ONCE)
            return self._made()

        return came

    def _take_who_waits(self, listener: socket.socket, most: int) -> None:
        for _ in range(most):
            try:
                connection, _ = listener.accept()
            except OSError:  # nobody is left, or there is no file for one more, which the loop finds too
                break
            task = self._loop.create_task(self._take(connection))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._made, connection, **self._options)
        except OSError:  # it is gone already, or its handshake has failed, of which the context tells
            connection.close()

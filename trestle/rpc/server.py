"""Serves gRPC on one address or several: connections, their age, their end."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from trestle.listening import Listening
from trestle.rpc.call import Call
from trestle.rpc.connection import Refusal, Served, ServerConnection
from trestle.rpc.method import Method

_LOOK: Final = 30.0
"""Seconds after which a connection that says nothing is asked for a sign, and after as many again given up."""
_PING_BACK: Final = 5.0
"""Seconds that a client may take to hear that it is to go."""
_SPREAD: Final = 0.1
"""Connections do not all come of age at once."""


class Server:
    """Make it inside a running loop. max_message_bytes: of a request. max_streams: calls that one connection may have
    open at once. admit: says why a call of a guarded method may not be; None where anybody may call. max_age: seconds
    after which a connection takes no new calls; max_age_grace: seconds that the open ones then have (zero for either:
    as long as it takes). name: what it calls itself to its callers. limit_setting: the setting of max_message_bytes,
    named to who sends more; empty for none."""

    def __init__(
        self,
        max_message_bytes: int = 4 * 1024 * 1024,
        max_streams: int = 20_000,
        admit: Callable[[Call], Refusal | None] | None = None,
        max_age: float = 0.0,
        max_age_grace: float = 0.0,
        *,
        name: str = "server",
        limit_setting: str = "",
    ) -> None:
        self._methods: dict[bytes, Method] = {}
        self._served = Served(
            name, self._methods, max_message_bytes, limit_setting, max_streams, admit, self._came, self._went
        )
        self._max_age = max_age
        self._max_age_grace = max_age_grace
        self._loop = asyncio.get_running_loop()
        self._listening: list[Listening] = []
        self._connections: dict[ServerConnection, asyncio.TimerHandle | None] = {}
        self._emptied = asyncio.Event()
        self._stopping = False
        self._looking = self._loop.call_later(_LOOK, self._look)

    def add(self, methods: Mapping[str, Method]) -> None:
        """Adds methods, by their paths."""
        self._methods.update({path.encode("ascii"): method for path, method in methods.items()})

    async def listen(self, name: str, address: str, context: ssl.SSLContext | None = None) -> str:
        """Serves on this address from now on; returns it as it turned out. name: of the setting that says it. context:
        of TLS; None: in the clear. Raises `ConfigError`."""
        listening = Listening(lambda: ServerConnection(self._served), context)
        self._listening.append(listening)
        return await listening.open(name, address)

    async def stop(self, grace: float) -> None:
        """No new connections and calls; returns once the open ones have ended, or were ended after so many seconds. May
        be called again with less."""
        self._stopping = True
        for listening in self._listening:
            await listening.close()
        self._looking.cancel()
        for connection in tuple(self._connections):
            connection.go()
        if self._connections:
            try:
                async with asyncio.timeout(grace):
                    await self._emptied.wait()
            except TimeoutError:
                for connection in tuple(self._connections):
                    connection.end()
                self._emptied.set()  # for who asked with more

    def _came(self, connection: ServerConnection) -> None:
        timer = None
        if self._max_age:
            seconds = self._max_age * random.uniform(1 - _SPREAD, 1 + _SPREAD)  # noqa: S311 (no secret)
            timer = self._loop.call_later(seconds, self._retire, connection)
        self._connections[connection] = timer
        self._emptied.clear()
        if self._stopping:  # it was on its way
            self._loop.call_soon(connection.go)

    def _went(self, connection: ServerConnection) -> None:
        timer = self._connections.pop(connection)
        if timer is not None:
            timer.cancel()
        if not self._connections:
            self._emptied.set()

    def _retire(self, connection: ServerConnection) -> None:
        connection.drain()
        self._connections[connection] = self._loop.call_later(_PING_BACK, self._retired, connection)

    def _retired(self, connection: ServerConnection) -> None:
        timer = self._loop.call_later(self._max_age_grace, connection.end) if self._max_age_grace else None
        self._connections[connection] = timer
        connection.go()

    def _look(self) -> None:
        for connection in tuple(self._connections):
            connection.look()
        self._looking = self._loop.call_later(_LOOK, self._look)

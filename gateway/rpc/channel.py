"""The way to a worker: the addresses behind its name, and the choice among them for each call."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Final

from gateway.rpc.backoff import Backoff
from gateway.rpc.balance import POLICIES, session_of
from gateway.rpc.call import Call, Metadata
from gateway.rpc.connection import ClientConnection
from gateway.rpc.method import Method
from gateway.rpc.names import Address, Name, addresses, on_the_wire
from gateway.rpc.replica import Replica, said

_CLOSED: Final = "The gateway has closed its channel to the worker."


class Channel:
    """Nothing is connected before the first call; then each address behind the name is, and stays so. Make it inside a
    running loop. name: where it leads. service: whose health a replica must tell of as good. context: of TLS; None: in
    the clear. balance: of `POLICIES`. resolve_interval: seconds between two look-ups of the name, at least.
    connections: all that there are, also those that only end what was begun on them."""

    def __init__(
        self,
        name: Name,
        service: str,
        *,
        context: ssl.SSLContext | None,
        tls_name: str,
        balance: str,
        resolve_interval: float,
        max_message_bytes: int,
    ) -> None:
        self.name = name
        self.service = service
        self.context = context
        self.tls_name = tls_name or name.host
        self.authority = on_the_wire(tls_name or name.authority)
        self.max_message_bytes = max_message_bytes
        self.tells_load = balance == "load"
        self._policy = POLICIES[balance]()
        self._interval = resolve_interval
        self._loop = asyncio.get_running_loop()
        self.connections: set[ClientConnection] = set()
        self._replicas: dict[Address, Replica] = {}
        self._ready: list[Replica] = []
        self._by_session = balance == "session"
        self._coming: list[Replica] = []
        self._failure = ""
        self._waiting: OrderedDict[Call, bytes] = OrderedDict()
        self._closed = False
        self._emptied = asyncio.Event()
        self._resolving: asyncio.Task[None] | None = None
        self._resolve = asyncio.Event()

    def method(self, service: str, name: str, response_type: Any) -> Method:
        """One to be called on it."""
        return Method(self, service, name, response_type, self.scheme)

    @property
    def scheme(self) -> bytes:
        return b"http" if self.context is None else b"https"

    # Of a picker.

    def ready(self, metadata: Metadata) -> ClientConnection | None:
        ready = self._ready
        if not ready:
            return None
        if self._coming and session_of(metadata) and not self._policy([*ready, *self._coming], metadata).ready:
            return None  # its replica is there in a moment, and the session is to stay with it
        replica = ready[0] if len(ready) == 1 else self._policy(ready, metadata)
        connection = replica.connection
        return connection if connection is not None and connection.takes_calls else self._any()

    def queue(self, call: Call, block: bytes) -> None:
        if self._closed:
            call.fail(_CLOSED)
            return
        if self._resolving is None:
            self._resolving = self._loop.create_task(self._follow())
            self._resolve.set()
        self._waiting[call] = block
        self._go_on()

    def leave(self, call: Call) -> str:
        if self._waiting.pop(call, None) is None:
            return ""
        if self._ready:
            return "while the worker had as many calls as it takes"
        if not self._replicas:
            return f"while {self.name.authority} was looked up"
        return f"while connecting to {', '.join(each.shown for each in self._replicas.values())}"

    def _any(self) -> ClientConnection | None:
        """For when who was chosen has no room for one more call."""
        for replica in self._ready:
            if replica.connection is not None and replica.connection.takes_calls:
                return replica.connection
        return None

    def _go_on(self) -> None:
        """Those who wait, in their turn, as far as there is room."""
        waiting = self._waiting
        for call in tuple(waiting) if self._coming else _heads(waiting):
            connection = self.ready(call.metadata)
            if connection is not None:
                call.go(connection, waiting.pop(call))
            elif self._failure and not any(replica.hopeful for replica in self._replicas.values()):
                waiting.pop(call)
                call.fail(self._failure)
            elif not self._coming:
                break
        if waiting:
            for replica in self._ready:
                if replica.connection is not None:
                    replica.connection.sought = True

    # Its replicas' side.

    def changed(self, failure: str = "") -> None:
        """One of them is ready, or no longer. failure: why, in words."""
        self._ready = [each for each in self._replicas.values() if each.ready]
        if self._by_session:
            self._coming = [each for each in self._replicas.values() if each.hopeful and not each.ready]
        self._failure = failure or self._failure
        self._go_on()

    def forget(self, connection: ClientConnection) -> None:
        """It is no more."""
        self.connections.discard(connection)
        if not self.connections:
            self._emptied.set()

    def freed(self) -> None:
        """There is room for a call."""
        self._go_on()

    def look_again(self) -> None:
        """A connection has ended: another address may have come to be behind the name."""
        self._resolve.set()

    async def close(self) -> None:
        """Ends all calls."""
        self._closed = True
        running = [] if self._resolving is None else [self._resolving]
        running += [each.stop() for each in self._replicas.values()]
        self._replicas.clear()
        for task in running:
            task.cancel()
        self.changed(_CLOSED)
        await asyncio.gather(*running, return_exceptions=True)
        self._emptied.clear()
        for connection in tuple(self.connections):
            connection.transport.abort()
        if self.connections:
            await self._emptied.wait()

    async def _follow(self) -> None:
        """Looks the name up whenever that may say something new."""
        backoff = Backoff()
        while True:
            await self._resolve.wait()
            self._resolve.clear()
            try:
                found = await addresses(self.name)
                if not found:
                    raise OSError("there is no address behind it")
            except Exception as error:  # noqa: BLE001 (whatever it is, it is tried again)
                self.changed(f"{self.name.host} cannot be looked up: {said(error)}")
                self._resolve.set()
                await backoff.wait()
                continue
            backoff.reset()
            self._adopt(found)
            if self.name.fixed:
                return
            await asyncio.sleep(self._interval)

    def _adopt(self, found: Sequence[Address]) -> None:
        """These are the addresses now."""
        for address in [each for each in self._replicas if each not in found]:
            self._replicas.pop(address).retire()
        for address in found:
            if address not in self._replicas:
                self._replicas[address] = Replica(self, address)
        self.changed()


def _heads(waiting: OrderedDict[Call, bytes]) -> Iterator[Call]:
    """The first of them, as often as there is one: who takes it takes it away."""
    while waiting:
        yield next(iter(waiting))

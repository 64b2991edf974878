"""The way to a worker: the addresses behind its name, a connection to each, and the choice among them for each call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
from collections.abc import Sequence
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2

from gateway.rpc.balance import POLICIES, weight_of
from gateway.rpc.call import Metadata, Method
from gateway.rpc.connection import ClientConnection
from gateway.rpc.names import Address, Name, addresses
from trestle.errors import CallError

log = logging.getLogger("gateway")

_CONNECT_SECONDS: Final = 10.0
_PAUSE, _LONGEST_PAUSE, _GROWTH, _JITTER = 0.1, 1.0, 1.6, 0.2
_FOR_EVER: Final = 10 * 365 * 86400.0
_HEALTH, _LOAD = "grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService"
_EACH_SECOND: Final = b"\x0a\x02\x08\x01"
"""`OrcaLoadReportRequest`, serialized: a report each second."""
_FRESH: Final = 30.0
"""Seconds for which a report counts."""
_UNAVAILABLE: Final = int(grpc.StatusCode.UNAVAILABLE.value[0])
_UNIMPLEMENTED: Final = int(grpc.StatusCode.UNIMPLEMENTED.value[0])


class Channel:
    """Nothing is connected before the first call; then each address behind the name is, and stays so. Make it inside a
    running loop. name: where it leads. service: whose health a replica must tell of as good. context: of TLS; None: in
    the clear. balance: of `POLICIES`. resolve_interval: seconds between two look-ups of the name, at least."""

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
        self.authority = (tls_name or name.authority).encode("idna" if not name.authority.isascii() else "ascii")
        self.max_message_bytes = max_message_bytes
        self.tells_load = balance == "load"
        self._policy = POLICIES[balance]()
        self._interval = resolve_interval
        self._loop = asyncio.get_running_loop()
        self._replicas: dict[Address, Replica] = {}
        self._ready: list[Replica] = []
        self._failure = ""
        self._waiting: list[asyncio.Future[None]] = []
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
        replica = ready[0] if len(ready) == 1 else self._policy(ready, metadata)
        connection = replica.connection
        return connection if connection is not None and connection.takes_calls else self._any()

    async def pick(self, metadata: Metadata) -> ClientConnection:
        if self._resolving is None:
            self._resolving = self._loop.create_task(self._follow())
            self._resolve.set()
        while (connection := self.ready(metadata)) is None:
            if self._failure and not any(replica.hopeful for replica in self._replicas.values()):
                raise CallError.from_status(_UNAVAILABLE, self._failure, None)
            change = self._loop.create_future()
            self._waiting.append(change)
            await change
        return connection

    def _any(self) -> ClientConnection | None:
        """For when who was chosen has no room for one more call."""
        for replica in self._ready:
            if replica.connection is not None and replica.connection.takes_calls:
                return replica.connection
        return None

    # Its replicas' side.

    def changed(self, failure: str = "") -> None:
        """One of them is ready, or no longer. failure: why, in words."""
        self._ready = [each for each in self._replicas.values() if each.ready]
        self._failure = failure or self._failure
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    def look_again(self) -> None:
        """A connection has ended: another address may have come to be behind the name."""
        self._resolve.set()

    async def close(self) -> None:
        """Ends all calls."""
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.gather(self._resolving, return_exceptions=True)
        replicas, self._replicas = self._replicas, {}
        await asyncio.gather(*(each.close() for each in replicas.values()))
        self.changed("The gateway has closed its channel to the worker.")

    async def _follow(self) -> None:
        """Looks the name up whenever that may say something new."""
        pause = _PAUSE
        while True:
            await self._resolve.wait()
            self._resolve.clear()
            try:
                found = await addresses(self.name)
                if not found:
                    raise OSError("there is no address behind it")
            except OSError as error:
                self.changed(f"{self.name.host} cannot be looked up: {error.strerror or error}")
                self._resolve.set()
                await asyncio.sleep(_jittered(pause))
                pause = min(pause * _GROWTH, _LONGEST_PAUSE)
                continue
            pause = _PAUSE
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


class Replica:
    """One address behind the name, to which a connection is kept. connection: the one that takes calls; None for none.
    ready: whether it takes some. hopeful: it has not failed since it was last ready. key, weight: as `balance` has
    them."""

    def __init__(self, channel: Channel, address: Address) -> None:
        host, port = address
        self.connection: ClientConnection | None = None
        self.hopeful = True
        self.key = f"{host}:{port}".encode()[-64:]
        self._address = address
        self._channel = channel
        self._healthy = False
        self._weight = 0.0
        self._weighed_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] | None = None
        self._old: set[ClientConnection] = set()
        self._running = self._loop.create_task(self._run())

    @property
    def ready(self) -> bool:
        return self._healthy and self.connection is not None

    @property
    def weight(self) -> float:
        return self._weight if self._loop.time() - self._weighed_at < _FRESH else 0.0

    def retire(self) -> None:
        """It is not behind the name any more: no new calls, open ones go on."""
        self._running.cancel()
        if self.connection is not None:
            self.connection.drain()

    async def close(self) -> None:
        """Ends its calls."""
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        for connection in (*self._old, *(() if self.connection is None else (self.connection,))):
            connection.transport.abort()

    async def _run(self) -> None:
        pause = _PAUSE
        while True:
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    connection = await self._connect()
            except (OSError, TimeoutError) as error:  # ssl's errors among them
                said = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
                self._failed(f"{self._shown}: {said}")
                self._channel.look_again()
                await asyncio.sleep(_jittered(pause))
                pause = min(pause * _GROWTH, _LONGEST_PAUSE)
                continue
            pause = _PAUSE
            self._ended = self._loop.create_future()
            if connection.draining:
                continue
            self.connection = connection
            watching = [self._loop.create_task(self._watch_health(connection))]
            if self._channel.tells_load:
                watching.append(self._loop.create_task(self._watch_load(connection)))
            try:
                await self._ended
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)
            self._channel.look_again()

    @property
    def _shown(self) -> str:
        host, port = self._address
        return f"{host}:{port}" if port else host

    async def _connect(self) -> ClientConnection:
        channel, (host, port) = self._channel, self._address
        made = lambda: ClientConnection(channel.authority, channel.max_message_bytes, self._changed)  # noqa: E731
        named = (channel.tls_name or host) if channel.context is not None else None
        if port:
            transport, connection = await self._loop.create_connection(
                made, host, port, ssl=channel.context, server_hostname=named
            )
        else:
            transport, connection = await self._loop.create_unix_connection(
                made, host, ssl=channel.context, server_hostname=named
            )
        try:
            await connection.settled_
        except BaseException:
            transport.abort()
            raise
        return connection

    def _changed(self, connection: ClientConnection) -> None:
        """A connection takes no calls any more, or is gone."""
        if connection.transport.is_closing() and not connection.streams:
            self._old.discard(connection)
        else:
            self._old.add(connection)
        if connection is self.connection:
            self.connection = None
            self._healthy = False
            self._weight = 0.0
            self.hopeful = True
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)
            self._channel.changed()

    def _failed(self, why: str) -> None:
        self.hopeful = self._healthy = False
        self._channel.changed(why)

    async def _watch_health(self, connection: ClientConnection) -> None:
        """Learns whether it serves, from grpc.health.v1. One that does not know of that service is taken to."""
        watch = Method(_Only(connection), _HEALTH, "Watch", health_pb2.HealthCheckResponse, self._channel.scheme)
        pause = _PAUSE
        while True:
            call = watch(health_pb2.HealthCheckRequest(service=self._channel.service), _FOR_EVER, ())
            try:
                while (answer := await call.read()) is not None:
                    pause = _PAUSE
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        self._serves()
                    else:
                        self._failed(f"{self._shown} says that it does not serve.")
            except CallError as error:
                if connection is not self.connection:
                    return
                if error.status == _UNIMPLEMENTED:
                    self._serves()
                    return
                self._failed(f"{self._shown}: {error.message}")
            finally:
                call.cancel()
            await asyncio.sleep(_jittered(pause))
            pause = min(pause * _GROWTH, _LONGEST_PAUSE)

    def _serves(self) -> None:
        self._healthy = self.hopeful = True
        self._channel.changed()

    async def _watch_load(self, connection: ClientConnection) -> None:
        """Learns how much it has to do. One that does not tell has no weight of its own."""
        watch = Method(_Only(connection), _LOAD, "StreamCoreMetrics", _Report, self._channel.scheme)
        while True:
            call = watch(_EachSecond, _FOR_EVER, ())
            try:
                while (report := await call.read()) is not None:
                    with contextlib.suppress(ValueError):
                        self._weight = weight_of(report)
                        self._weighed_at = self._loop.time()
            except CallError as error:
                if connection is not self.connection or error.status == _UNIMPLEMENTED:
                    return
            finally:
                call.cancel()
            await asyncio.sleep(_LONGEST_PAUSE)


class _Only:
    """A picker that has one connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def ready(self, metadata: Metadata) -> ClientConnection | None:
        return None if self._connection.transport.is_closing() else self._connection

    async def pick(self, metadata: Metadata) -> ClientConnection:
        raise CallError.from_status(_UNAVAILABLE, "The connection has ended.", None)


class _EachSecond:
    """The request for load reports."""

    @staticmethod
    def SerializeToString() -> bytes:
        return _EACH_SECOND


class _Report:
    """A load report, as it is."""

    @staticmethod
    def FromString(data: bytes) -> bytes:
        return data


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 (no secret)

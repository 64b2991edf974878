"""One address behind a worker's name: the connection that is kept to it, whether it serves, how much it has to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Final

import grpc
from grpc_health.v1 import health_pb2

from gateway.rpc.backoff import LONGEST, Backoff
from gateway.rpc.balance import weight_of
from gateway.rpc.call import Call, Metadata
from gateway.rpc.connection import PATIENCE, ClientConnection
from gateway.rpc.method import Method
from gateway.rpc.names import Address
from trestle.errors import CallError

if TYPE_CHECKING:
    from gateway.rpc.channel import Channel

_CONNECT_SECONDS: Final = 10.0
_MOST_PATIENCE: Final = 60
"""Looks after which even a worker is asked for a sign that has complained of being asked."""
_HERE: Final = "localhost"
"""Whose certificate is shown on a socket in the file system."""
_AT_ONCE: Final = "it takes no calls"
_FOR_EVER: Final = 10 * 365 * 86400.0
_HEALTH, _LOAD = "grpc.health.v1.Health", "xds.service.orca.v3.OpenRcaService"
_EACH_SECOND: Final = b"\x0a\x02\x08\x01"
"""`OrcaLoadReportRequest`, serialized: a report each second."""
_FRESH: Final = 30.0
"""Seconds for which a report counts."""
_UNIMPLEMENTED: Final = int(grpc.StatusCode.UNIMPLEMENTED.value[0])


class Replica:
    """One address behind the name, to which a connection is kept. connection: the one that takes calls; None for none.
    ready: whether it takes some. hopeful: it has not failed since it was last ready. shown: its address, in words. key,
    weight: as `balance` has them."""

    def __init__(self, channel: Channel, address: Address) -> None:
        host, port = address
        self.connection: ClientConnection | None = None
        self.hopeful = True
        self.key = f"{host}:{port}".encode()[-64:]
        self.shown = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}") if port else host.replace("\0", "@")
        self._address = address
        self._channel = channel
        self._healthy = False
        self._weight = 0.0
        self._weighed_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] | None = None
        self._patience = PATIENCE
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

    def stop(self) -> asyncio.Task[None]:
        """No new connections, and what there is looked after no more; returns what ends by that."""
        self._running.cancel()
        return self._running

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            begun = self._loop.time()
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    connection = await self._connect()
            except Exception as error:  # noqa: BLE001 (whatever it is, it is tried again)
                self._failed(f"{self.shown}: {said(error)}")
                lasting = False
            else:
                await self._keep(connection)
                lasting = self._loop.time() - begun > LONGEST
            self._channel.look_again()
            if lasting:
                backoff.reset()
            else:
                await backoff.wait()

    async def _keep(self, connection: ClientConnection) -> None:
        """Has calls made on it; returns once it takes no more of them."""
        if connection.draining:
            self._failed(f"{self.shown}: {connection.why or _AT_ONCE}")
            return
        self._ended = self._loop.create_future()
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

    async def _connect(self) -> ClientConnection:
        channel, (host, port) = self._channel, self._address
        connection = ClientConnection(channel.authority, channel.max_message_bytes, self, self._patience)
        named = None if channel.context is None else channel.tls_name or (host if port else _HERE)
        try:
            if port:
                await self._loop.create_connection(
                    lambda: connection, host, port, ssl=channel.context, server_hostname=named
                )
            else:
                await self._loop.create_unix_connection(
                    lambda: connection, host, ssl=channel.context, server_hostname=named
                )
        except BaseException:
            connection.unmade()
            raise
        try:
            await connection.settled_
        except ConnectionError as error:
            wrong = "does it ask for TLS?" if channel.context is None else "does it know the certificate that is shown?"
            raise ConnectionError(f"{error}, before it spoke gRPC: {wrong}") from None
        except BaseException:
            connection.transport.abort()
            raise
        return connection

    # Of a keeper.

    def came(self, connection: ClientConnection) -> None:
        self._channel.connections.add(connection)

    def stopped(self, connection: ClientConnection) -> None:
        if connection is not self.connection:
            return
        if connection.calm:
            self._patience = min(self._patience * 2, _MOST_PATIENCE)
        self.connection = None
        served, self._healthy = self._healthy, False
        self._weight = 0.0
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if served:
            self.hopeful = True  # it is there again in a moment, as a rule
            self._channel.changed()
        else:
            self._failed(f"{self.shown}: {connection.why or _AT_ONCE}")

    def freed(self, connection: ClientConnection) -> None:
        self._channel.freed()

    def went(self, connection: ClientConnection) -> None:
        self._channel.forget(connection)

    def _failed(self, why: str) -> None:
        self.hopeful = self._healthy = False
        self._channel.changed(why)

    async def _watch_health(self, connection: ClientConnection) -> None:
        """Learns whether it serves, from grpc.health.v1. One that does not know of that service is taken to."""
        watch = Method(_Only(connection), _HEALTH, "Watch", health_pb2.HealthCheckResponse, self._channel.scheme)
        backoff = Backoff()
        while True:
            call = watch(health_pb2.HealthCheckRequest(service=self._channel.service), _FOR_EVER, ())
            try:
                while (answer := await call.read()) is not None:
                    backoff.reset()
                    if connection is not self.connection:
                        return
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        self._serves()
                    else:
                        self._failed(f"{self.shown} says that it does not serve")
            except CallError as error:
                if connection is not self.connection:
                    return
                if error.status == _UNIMPLEMENTED:
                    self._serves()
                    return
                self._failed(f"{self.shown}: {error.message}")
            finally:
                call.cancel()
            await backoff.wait()

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
                    if connection is not self.connection:
                        return
                    with contextlib.suppress(ValueError):
                        self._weight = weight_of(report)
                        self._weighed_at = self._loop.time()
            except CallError as error:
                if connection is not self.connection or error.status == _UNIMPLEMENTED:
                    return
            finally:
                call.cancel()
            await asyncio.sleep(LONGEST)


class _Only:
    """A picker that has one connection."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def ready(self, metadata: Metadata) -> ClientConnection | None:
        return None if self._connection.draining else self._connection

    def queue(self, call: Call, block: bytes) -> None:
        call.fail("The connection has ended.")

    def leave(self, call: Call) -> str:
        return ""


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


def said(error: Exception) -> str:
    """Why there is no connection, in words for who is to put it right."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "it does not answer"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed, if it speaks it there at all: {error.reason or error}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"

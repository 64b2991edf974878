"""The worker's process: settings to a serving gRPC server, and its end. The only file here that knows every part."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trestle import memory
from trestle.config import ConfigError
from trestle.v1 import worker_service_pb2, worker_service_pb2_grpc
from worker.calls import Calls
from worker.credentials import tokens_for
from worker.family import LocalFamily, RemoteFamily
from worker.local import LocalService
from worker.service import RemoteService
from worker.settings import WorkerSettings, upstreams_of
from worker.upstream import UpstreamClient

log: Final = logging.getLogger("worker")
SERVICE: Final[str] = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
# For the last answers' statuses to leave.
_LAST_MOMENT: Final = 0.5
_LOOPBACK: Final = ("127.", "localhost:", "[::1]:", "unix:")


async def serve(family: RemoteFamily[Any] | LocalFamily, settings: WorkerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then lets open calls finish. Raises `ConfigError` when it may not or cannot."""
    if not settings.insecure and not settings.listen.startswith(_LOOPBACK):
        raise ConfigError(
            f"worker.listen: {settings.listen} is not loopback and nothing protects it; "
            "set worker.insecure: true if its network is trusted"
        )
    calls = Calls(settings.max_calls)
    clients: dict[str, UpstreamClient[Any]] = {}
    servicer: worker_service_pb2_grpc.WorkerServiceServicer
    if isinstance(getattr(family, "upstream_type", None), type):
        remote: Any = family
        upstreams = [(upstream, tokens_for(remote, upstream)) for upstream in upstreams_of(settings, remote)]
        clients = {upstream.name: UpstreamClient(upstream, tokens) for upstream, tokens in upstreams}
        servicer = RemoteService(remote, clients, calls)
    else:
        local: Any = family
        servicer = LocalService(local, calls)
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", settings.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.bdp_probe", 0),
            # A gateway holds one connection for as long as it lives; its pings must not be taken for abuse.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        )
    )
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(servicer, server)
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        port = server.add_insecure_port(settings.listen)
    except RuntimeError:
        raise ConfigError(f"worker.listen: cannot listen on {settings.listen}; is the port taken?") from None
    # Before anybody is told that it serves, and so may ask it to end.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    host = settings.listen.rpartition(":")[0]
    print(f"listening on {host}:{port}", flush=True)
    memory.settle()
    await stop.wait()
    await checks.enter_graceful_shutdown()
    if settings.drain_delay:
        log.info("stopping: not serving any more, new calls for %g seconds", settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    log.info("stopping: no new calls, open ones have %g seconds", settings.drain_timeout)
    await _finish(server, calls, settings.drain_timeout)
    for client in clients.values():
        await client.close()


async def _finish(server: grpc.aio.Server, calls: Calls, seconds: float) -> None:
    """Lets open calls end, so many seconds at most. Others than the service's own, such as a watch of our health, never
    do by themselves: they have a moment after the last of the service's."""
    ended = asyncio.create_task(server.stop(seconds))
    emptied = asyncio.create_task(calls.emptied())
    await asyncio.wait((ended, emptied), return_when=asyncio.FIRST_COMPLETED)
    emptied.cancel()
    if not ended.done():
        await server.stop(_LAST_MOMENT)
    await ended


async def probe(address: str) -> bool:
    """Whether the worker at this address says that it serves, asked once."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=3)
        except grpc.aio.AioRpcError as error:
            print(f"{address}: {error.code().name} {error.details()}", file=sys.stderr)
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

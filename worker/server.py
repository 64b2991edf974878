"""The worker's process: settings to a serving gRPC server, and its end. The only file here that knows every part."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from trestle import logs, memory
from trestle.rpc.method import methods_of
from trestle.rpc.server import Server
from trestle.supervise import follow_supervisor
from trestle.tls import ServerFiles, grpc_context
from trestle.traces import Tracer, TraceSettings
from trestle.v1 import worker_service_pb2
from trestle.watch import Watch
from worker import load
from worker.callers import Callers
from worker.calls import Calls
from worker.family import LocalFamily, RemoteFamily
from worker.local import LocalService
from worker.methods import Servicer, methods
from worker.reload import Reload, clients_of
from worker.service import RemoteService
from worker.settings import WorkerSettings, check_exposed
from worker.vault import vault_of

log: Final = logging.getLogger("worker")
SERVICE: Final[str] = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"].full_name
# For the last answers' statuses to leave.
_LAST_MOMENT: Final = 0.5
# Calls on one connection that are not the contract's: of health, load, reflection.
_WATCHES: Final = 100


async def serve(
    family: RemoteFamily[Any] | LocalFamily, settings: WorkerSettings, path: Path, read: Callable[[], WorkerSettings]
) -> None:
    """Serves until SIGTERM or SIGINT, then lets open calls finish. path: of the file that `read` gives the settings of,
    anew when it changes. Raises `ConfigError` when it may not or cannot."""
    watch = Watch(path)
    check_exposed(settings)
    callers = Callers(settings.callers)
    calls = Calls(settings.max_calls, settings.log_calls)
    service: RemoteService | None = None
    servicer: Servicer
    if isinstance(getattr(family, "upstream_type", None), type):
        remote: Any = family
        vault = vault_of(settings.name or remote.name, settings.seal_key_envs)
        servicer = service = RemoteService(remote, clients_of(remote, settings, {}), calls, vault)
    else:
        local: Any = family
        servicer = LocalService(local, calls)
    reload = Reload(family, settings, read, service, callers if settings.callers else None, calls)
    tracer = None
    if settings.traces is not None:
        tracer = _trace(settings.traces, family.name, calls)
    tls = None if settings.tls is None else ServerFiles("worker.tls", settings.tls)
    metrics_address = ""
    if settings.metrics:
        refused = lambda: watch.refused or (tls is not None and tls.refused)  # noqa: E731
        metrics_address = _measure(settings, family.name, calls, refused, service)
    server = Server(
        settings.max_message_bytes,
        2 * settings.max_calls + _WATCHES,  # calls beyond the first half are refused in words
        callers.admit if settings.callers else None,
        settings.max_connection_age,
        settings.max_connection_age_grace,
        name="worker",
        limit_setting="worker.max_message_bytes",
    )
    server.add(methods(servicer))
    described: Any = reflection.aio.ReflectionServicer((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME))
    server.add(methods_of(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, described))
    # These say nothing of anybody, and it is gRPC itself that asks them, without a token.
    checks = health.aio.HealthServicer()
    healthy = methods_of(health_pb2_grpc.add_HealthServicer_to_server, checks, guarded=False)
    server.add(healthy)
    server.add(load.LoadReports(calls).methods())
    health_server = Server(name="worker")
    health_server.add(healthy)
    # Before anybody is told that it serves, and so may ask it to end.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    follow_supervisor(stop.set)
    for name in ("", SERVICE):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    address = await server.listen("worker.listen", settings.listen, None if tls is None else grpc_context(tls))
    health_address = ""
    if settings.health:
        health_address = await health_server.listen("worker.health", settings.health)
    logs.tell(f"listening on {address}")
    if health_address:
        logs.tell(f"health listening on {health_address}")
    if metrics_address:
        logs.tell(f"metrics listening on {metrics_address}")
    memory.settle()
    following = asyncio.create_task(watch.renew(reload.change_over))
    await stop.wait()
    following.cancel()
    settings = reload.settings
    await checks.enter_graceful_shutdown()
    if settings.drain_delay:
        log.info("stopping: not serving any more, new calls for %g seconds", settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    log.info("stopping: no new calls, open ones have %g seconds", settings.drain_timeout)
    await _finish(server, calls, settings.drain_timeout)
    await health_server.stop(_LAST_MOMENT)
    for client in service.clients.values() if service is not None else ():
        await client.close()
    if tracer is not None:
        await asyncio.to_thread(tracer.close)


def _measure(
    settings: WorkerSettings, family: str, calls: Calls, refused: Callable[[], bool], service: RemoteService | None
) -> str:
    """Serves metrics from now on; returns where. What that needs is imported by who wants it."""
    from trestle import scrape  # noqa: PLC0415
    from worker.metrics import Metrics, Queues  # noqa: PLC0415

    metrics = scrape.registry()
    calls.observer = Metrics(metrics, family, calls)
    about = "1 when the last configuration was refused, and the one before counts."
    metrics.register(Queues(lambda: {} if service is None else service.clients))
    scrape.Now("trestle_config_refused", about, lambda: int(refused()), metrics)
    shown = {} if settings.tls is None else {"worker.tls": settings.tls.certificate}
    scrape.Certificates(lambda: shown, metrics)
    return scrape.serve("worker.metrics", settings.metrics, metrics)


def _trace(settings: TraceSettings, family: str, calls: Calls) -> Tracer:
    """Makes spans from now on. What that needs is imported by who wants it. Raises `ConfigError`."""
    tracer = Tracer("worker.traces", f"trestle-worker-{family}", settings)
    from worker.tracing import Tracing  # noqa: PLC0415

    calls.tracing = Tracing(tracer, family)
    return tracer


async def _finish(server: Server, calls: Calls, seconds: float) -> None:
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

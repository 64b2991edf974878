"""The gateway's process: its start, the configuration read anew while it serves, its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web
from msgspec import structs

from gateway.app import Deck, Parts, admin_edge, assemble, open_accounts, open_limiter, open_sessions
from gateway.listener import Bounds, Listener
from gateway.reply import Reply
from gateway.settings import NEEDS_RESTART, GatewaySettings, GatewayTls, check, endpoints
from gateway.workers import Worker
from trestle import logs, memory
from trestle.supervise import follow_supervisor
from trestle.tls import ServerFiles, client_files, http_context
from trestle.traces import Tracer, TraceSettings
from trestle.watch import Watch

if TYPE_CHECKING:
    from gateway.session_service import SessionListener

log = logging.getLogger("gateway")
# What workers that are new may take to list their models before the deck that knows them serves.
_ACQUAINTANCE: Final = 2.0
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


async def serve(settings: GatewaySettings, path: Path, read: Callable[[], GatewaySettings]) -> None:
    """Serves until SIGTERM or SIGINT, then lets open answers finish. path: of the file that `read` gives the settings
    of, anew when it changes. Raises `ConfigError` when it cannot."""
    watch = Watch(path)
    watch.follow(files_of_workers(settings))
    accounts = await open_accounts(settings)
    try:
        limiter = await open_limiter(settings, accounts)
        limiter.start()
        try:
            parts = Parts(accounts, open_sessions(settings), limiter)
            await Process(settings, parts, read, watch).run()
        finally:
            await limiter.close()
    finally:
        if accounts is not None:
            await accounts.close()


class Process:
    """Serves from a deck, and from another one when the configuration has changed: what was begun on the old deck ends
    there."""

    def __init__(
        self, settings: GatewaySettings, parts: Parts, read: Callable[[], GatewaySettings], watch: Watch
    ) -> None:
        self._watch = watch
        self._parts = parts
        self._read = read
        self._deck = assemble(settings, parts)
        parts.log_access(settings.access_log)
        self._stop = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None
        self._grpc: SessionListener | None = None
        self._tracer: Tracer | None = None
        self._tls: ServerFiles | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        # Before anybody is told that it serves, and so may ask it to end.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        follow_supervisor(self._stop.set)
        settings, accounts = self._deck.settings, self._parts.accounts
        tls = None if settings.tls is None else server_files(settings.tls)
        context = None if tls is None else http_context(tls)
        self._tls = tls
        listeners = []
        others: list[str] = []
        if accounts is not None and settings.admin is not None:
            edge = admin_edge(settings.admin, accounts, settings.currency)
            listeners.append(_listener(edge.answer, settings, context))
            admin_address = await listeners[-1].listen("gateway.admin.listen", settings.admin.listen)
            others.append(f"admin API listening on {admin_address}")
        listeners.append(_listener(self._answer, settings, context))
        address = await listeners[-1].listen("gateway.listen", settings.listen, reuse_port=settings.reuse_port)
        if settings.grpc:
            others.append(f"session events listening on {await self._tell_sessions(settings)}")
        if settings.health:
            listeners.insert(0, _listener(self._probe, settings, None))  # the last to go
            others.append(f"health listening on {await listeners[0].listen('gateway.health', settings.health)}")
        if settings.traces is not None:
            self._trace(settings.traces)
        if settings.metrics:
            others.append(f"metrics listening on {self._measure(settings.metrics)}")
        self._listing = asyncio.create_task(self._deck.catalogue.run())
        watching = [asyncio.create_task(self._watch.renew(self._change_over))]
        if accounts is not None:
            accounts.ledger.start()
            watching.append(asyncio.create_task(accounts.directory.run()))
        logs.tell(f"listening on {address}")
        for line in others:
            logs.tell(line)
        memory.settle()
        await self._stop.wait()
        await self._drain(listeners, watching)

    async def _tell_sessions(self, settings: GatewaySettings) -> str:
        """Serves session events over gRPC from now on; returns where. What that needs is imported by who wants it.
        Raises `ConfigError`."""
        from gateway.session_service import SessionListener, SessionServicer  # noqa: PLC0415

        tls = None if settings.tls is None else server_files(settings.tls)
        self._grpc = SessionListener(SessionServicer(self._parts.sessions, lambda: self._deck.keyring))
        return await self._grpc.listen(settings.grpc, tls)

    def _measure(self, address: str) -> str:
        """Serves metrics from now on; returns where. What that needs is imported by who wants it."""
        from gateway.metrics import Metrics, State  # noqa: PLC0415
        from trestle import scrape  # noqa: PLC0415

        parts, metrics = self._parts, scrape.registry()
        ledger = None if parts.accounts is None else parts.accounts.ledger
        parts.observers.append(Metrics(metrics, self._offers))
        rows = None if ledger is None else lambda: (ledger.waiting, ledger.lost)
        resting = lambda: parts.breakers(self._deck.settings.breaker).resting()  # noqa: E731
        queues = lambda: {name: worker.waiting for name, worker in self._deck.workers.items()}  # noqa: E731
        metrics.register(State(resting, parts.limiter, rows, self._refused, queues))
        scrape.Certificates(lambda: certificates(self._deck.settings), metrics)
        return scrape.serve("gateway.metrics", address, metrics)

    def _trace(self, settings: TraceSettings) -> None:
        """Makes spans from now on. What that needs is imported by who wants it. Raises `ConfigError`."""
        self._tracer = Tracer("gateway.traces", "trestle-gateway", settings)
        from gateway.tracing import Tracing  # noqa: PLC0415

        self._parts.observers.append(Tracing(self._tracer))

    def _refused(self) -> bool:
        return self._watch.refused or (self._tls is not None and self._tls.refused)

    def _offers(self, model: str) -> bool:
        return self._deck.router.offers(model)

    def _answer(self, request: web.BaseRequest) -> Awaitable[Reply]:
        return self._deck.edge.answer(request)

    def _probe(self, request: web.BaseRequest) -> Awaitable[Reply]:
        return self._deck.probes.answer(request)

    async def _drain(self, listeners: list[Listener], watching: list[asyncio.Task[None]]) -> None:
        settings, accounts = self._deck.settings, self._parts.accounts
        self._deck.stop()
        if settings.drain_delay:
            log.info("stopping: not ready any more, new requests for %g seconds", settings.drain_delay)
            await asyncio.sleep(settings.drain_delay)
        # Nobody can listen to them any longer; who does comes back, and finds what is kept elsewhere.
        await self._parts.sessions.close()
        if self._grpc is not None:
            await self._grpc.close()
        log.info("stopping: no new requests, open ones have %g seconds", settings.drain_timeout)
        if accounts is not None:
            await accounts.directory.pause()
        for task in (*watching, self._listing):
            if task is not None:
                task.cancel()
        for listener in reversed(listeners):
            await listener.close()
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for worker in self._deck.workers.values():
            await worker.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    async def _change_over(self) -> None:
        """Raises `ConfigError`; then nothing has changed."""
        before = self._deck
        settings = _as_far_as_now(self._read(), before.settings)
        self._watch.follow(files_of_workers(settings))
        deck = assemble(settings, self._parts, before)
        try:
            async with asyncio.timeout(_ACQUAINTANCE):
                await deck.catalogue.ask(deck.router.unlisted)
        except TimeoutError:
            log.info("not every new worker has listed its models yet")
        if self._stop.is_set():
            return
        self._deck = deck
        logs.configure(deck.settings.log_format, deck.settings.log_level, service="gateway")
        self._parts.log_access(deck.settings.access_log)
        if self._listing is not None:
            self._listing.cancel()
        self._listing = asyncio.create_task(deck.catalogue.run())
        kept = set(deck.workers.values())
        task = asyncio.create_task(_retire(before, [each for each in before.workers.values() if each not in kept]))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _retire(deck: Deck, workers: list[Worker]) -> None:
    """Closes the workers once nobody is served from the deck any more."""
    try:
        await deck.edge.emptied()
    finally:
        for worker in workers:
            await worker.close()


def _as_far_as_now(new: GatewaySettings, old: GatewaySettings) -> GatewaySettings:
    """The new settings, but for what needs a restart. Raises `ConfigError` where the two do not go together."""
    later = [name for name in NEEDS_RESTART if getattr(new, name) != getattr(old, name)]
    if not later:
        return new
    log.warning("gateway.%s: the new value counts from the next start", ", gateway.".join(later))
    settled = structs.replace(new, **{name: getattr(old, name) for name in later})
    check(settled)
    return settled


def _listener(
    answer: Callable[[web.BaseRequest], Awaitable[Reply]],
    settings: GatewaySettings,
    context: ssl.SSLContext | None,
) -> Listener:
    bounds = Bounds(
        settings.max_header_bytes,
        settings.max_connections,
        settings.head_timeout,
        settings.stall_timeout,
        settings.drain_timeout,
    )
    return Listener(answer, bounds, context)


def server_files(tls: GatewayTls) -> ServerFiles:
    """Raises `ConfigError`."""
    return ServerFiles("gateway.tls", tls, _VERSIONS[tls.min_version])


def files_of_workers(settings: GatewaySettings) -> list[Path]:
    """The files that a change of makes new channels to workers."""
    known = [endpoint.tls for endpoint in endpoints(settings).values() if endpoint.tls is not None]
    return [path for tls in known for path in client_files(tls)]


def certificates(settings: GatewaySettings) -> dict[str, str]:
    """The files of what it shows, by the paths of their settings."""
    shown = {} if settings.tls is None else {"gateway.tls": settings.tls.certificate}
    for name, endpoint in endpoints(settings).items():
        if endpoint.tls is not None and endpoint.tls.certificate:
            shown[f"gateway.workers.{name}.tls"] = endpoint.tls.certificate
    return shown

"""The gateway's process: settings to a serving HTTP edge, and its end. The only file that knows every part."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.auth import Keyring
from gateway.breaker import Breakers
from gateway.catalogue import Catalogue
from gateway.edge import Edge
from gateway.endpoints import Endpoint, Handler, Table
from gateway.handlers.agents import AgentsHandler
from gateway.handlers.base import Bridge
from gateway.handlers.generation import CHAT, TEXT, GenerationHandler
from gateway.handlers.health import HealthHandler
from gateway.handlers.models import ModelsHandler, OwnModelsHandler
from gateway.handlers.openapi import OpenApiHandler
from gateway.handlers.single import EMBEDDINGS, MODERATIONS, SingleHandler
from gateway.listener import Listener
from gateway.namespace import NOTHING_ADDED, Namespace
from gateway.openapi import Operation, operations
from gateway.routed import Network
from gateway.routing import Router
from gateway.settings import AdminSettings, CorsSettings, GatewaySettings, admin_keys, configured_keys, endpoints
from gateway.sse import Pace
from gateway.workers import Worker
from trestle import memory

if TYPE_CHECKING:
    from gateway.accounts import Accounts

log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Published:
    """What the API's description tells of: one operation and where it is. path: as in `Endpoint`. versioned: stands
    below /v1 and without it. guarded: for who shows a key."""

    method: str
    path: str
    handler: Handler
    operation: Operation
    versioned: bool = True
    guarded: bool = True

    def endpoints(self) -> Iterator[Endpoint]:
        about = self.operation
        for prefix in ("/v1", "") if self.versioned else ("",):
            yield Endpoint(self.method, prefix + self.path, self.handler, about.scope, self.guarded, about.kind)


async def serve(settings: GatewaySettings) -> None:
    """Serves until SIGTERM or SIGINT, then lets open answers finish. Raises `ConfigError` when it cannot."""
    accounts = await _accounts(settings)
    try:
        await _serve(settings, accounts)
    finally:
        if accounts is not None:
            await accounts.close()


async def _serve(settings: GatewaySettings, accounts: Accounts | None) -> None:
    keyring = Keyring(
        configured_keys(settings) if settings.auth == "keys" else None,
        None if accounts is None else accounts.directory,
    )
    workers = {
        name: Worker(name, endpoint, settings.max_message_bytes) for name, endpoint in endpoints(settings).items()
    }
    router = Router(settings.models, workers)
    catalogue = Catalogue(workers, router, settings.catalogue_interval)
    health = HealthHandler(workers)
    namespaces = _no_namespace if accounts is None else accounts.directory.namespace
    models = ModelsHandler(router, catalogue, namespaces)
    bridge = Bridge(
        catalogue,
        namespaces,
        Network(workers, Breakers(settings.breaker, time.monotonic)),
        timeout=settings.timeout,
        max_timeout=settings.max_timeout,
        max_body_bytes=settings.max_body_bytes,
        max_tools=settings.max_tools,
    )
    pace = Pace(settings.keep_alive_interval, settings.stall_timeout)
    published = [
        Published("POST", "/chat/completions", GenerationHandler(CHAT, bridge, pace).create, operations.CHAT),
        Published("POST", "/completions", GenerationHandler(TEXT, bridge, pace).create, operations.COMPLETION),
        Published("POST", "/embeddings", SingleHandler(EMBEDDINGS, bridge).create, operations.EMBEDDINGS),
        Published("POST", "/moderations", SingleHandler(MODERATIONS, bridge).create, operations.MODERATION),
        Published("GET", "/models", models.list, operations.LIST_MODELS),
        Published("GET", "/models/{id:.+}", models.retrieve, operations.RETRIEVE_MODEL),
        Published("GET", "/healthz", health.live, operations.LIVE, versioned=False, guarded=False),
        Published("GET", "/readyz", health.ready, operations.READY, versioned=False, guarded=False),
    ]
    if accounts is not None:
        published += _managed(accounts, workers)
    description = OpenApiHandler(published, keys=settings.auth == "keys")
    published.append(
        Published("GET", "/openapi.json", description.describe, operations.DESCRIBE, versioned=False, guarded=False)
    )
    table = Table(endpoint for each in published for endpoint in each.endpoints())
    edge = Edge(table, keyring, settings.cors, settings.max_requests)

    # Before anybody is told that it serves, and so may ask it to end.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    admin = None
    if accounts is not None and settings.admin is not None:
        admin = _listener(_admin(settings.admin, accounts), settings)
        admin_address = await admin.listen("gateway.admin.listen", settings.admin.listen)
    public = _listener(edge, settings)
    address = await public.listen("gateway.listen", settings.listen, reuse_port=settings.reuse_port)
    watching = [asyncio.create_task(catalogue.run())]
    if accounts is not None:
        watching.append(asyncio.create_task(accounts.directory.run()))
    print(f"listening on {address}", flush=True)
    if admin is not None:
        print(f"admin API listening on {admin_address}", flush=True)
    memory.settle()
    await stop.wait()
    health.stopping = edge.stopping = True
    if settings.drain_delay:
        log.info("stopping: not ready any more, new requests for %g seconds", settings.drain_delay)
        await asyncio.sleep(settings.drain_delay)
    log.info("stopping: no new requests, open ones have %g seconds", settings.drain_timeout)
    if accounts is not None:
        await accounts.directory.pause()
    for task in watching:
        task.cancel()
    for listener in (public, admin):
        if listener is not None:
            await listener.close()
    for worker in workers.values():
        await worker.close()


def _listener(edge: Edge, settings: GatewaySettings) -> Listener:
    return Listener(edge.answer, settings.max_header_bytes, settings.drain_timeout)


async def _accounts(settings: GatewaySettings) -> Accounts | None:
    """Where a database is configured; what it needs is not even imported where none is. Raises `ConfigError`."""
    if not settings.database:
        return None
    # It tells of every plugin as soon as it is imported; what matters comes as an error.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from gateway.accounts import Accounts  # noqa: PLC0415

    return await Accounts.open(settings)


def _no_namespace(account: str) -> Namespace:
    return NOTHING_ADDED


def _managed(accounts: Accounts, workers: Collection[str]) -> list[Published]:
    """What an account adds for itself."""
    models = OwnModelsHandler(accounts.names, accounts.directory, workers)
    agents = AgentsHandler(accounts.names, accounts.directory)
    return [
        Published("POST", "/models", models.create, operations.ADD_MODEL),
        Published("DELETE", "/models/{id:.+}", models.delete, operations.REMOVE_MODEL),
        Published("GET", "/agents", agents.list, operations.LIST_AGENTS),
        Published("POST", "/agents", agents.create, operations.CREATE_AGENT),
        Published("GET", "/agents/{name:.+}", agents.get, operations.RETRIEVE_AGENT),
        Published("PUT", "/agents/{name:.+}", agents.replace, operations.REPLACE_AGENT),
        Published("PATCH", "/agents/{name:.+}", agents.change, operations.CHANGE_AGENT),
        Published("DELETE", "/agents/{name:.+}", agents.delete, operations.DELETE_AGENT),
    ]


def _admin(settings: AdminSettings, accounts: Accounts) -> Edge:
    """The API for accounts and keys, and nothing else."""
    from gateway.handlers.accounts import AccountsHandler  # noqa: PLC0415

    table = Table(AccountsHandler(accounts.accounts, accounts.directory).endpoints())
    return Edge(table, Keyring(admin_keys(settings)), CorsSettings())

"""The gateway put together: settings to an edge. The only file that knows every part."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.access import AccessLog
from gateway.auth import Keyring, admin_keys, configured_keys
from gateway.breaker import Breakers
from gateway.catalogue import Catalogue
from gateway.edge import Edge, Places
from gateway.endpoints import Endpoint, Handler, Table
from gateway.handlers.agents import AgentsHandler
from gateway.handlers.base import Bridge
from gateway.handlers.generation import CHAT, TEXT, GenerationHandler
from gateway.handlers.health import HealthHandler
from gateway.handlers.models import ModelsHandler, OwnModelsHandler
from gateway.handlers.openapi import OpenApiHandler
from gateway.handlers.sessions import SessionsHandler
from gateway.handlers.single import EMBEDDINGS, MODERATIONS, SingleHandler
from gateway.limits.limiter import Limiter
from gateway.limits.policy import Holder
from gateway.namespace import NOTHING_ADDED, Namespace
from gateway.openapi import Operation, operations
from gateway.prices import Prices
from gateway.record import Observer
from gateway.routed import Budget, Network
from gateway.routing import Router
from gateway.sessions import NoSessions, SessionHub, Sessions
from gateway.settings import (
    AdminSettings,
    BreakerSettings,
    CorsSettings,
    GatewaySettings,
    WorkerEndpoint,
    endpoints,
)
from gateway.workers import Worker, read_links
from trestle.config import ConfigError
from trestle.supervise import share

if TYPE_CHECKING:
    from gateway.accounts import Accounts

_PATIENCE: Final = 5.0
"""Seconds for an answer that may take its time, as the next event of a session does."""


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


class Parts:
    """What outlives a reading of the configuration. accounts: None where there is no database. sessions: what
    happens in them. limiter: how much keys may use. observers: told of every request. places: how many requests are
    served, and may be."""

    def __init__(self, accounts: Accounts | None, sessions: Sessions, limiter: Limiter) -> None:
        self.accounts = accounts
        self.sessions = sessions
        self.limiter = limiter
        self.observers: list[Observer] = [limiter] if accounts is None else [limiter, accounts.ledger]
        self.places = Places()
        self._breakers: tuple[BreakerSettings, Breakers] | None = None

    def log_access(self, wanted: bool) -> None:
        """From now on each request has a line in the log, or has none."""
        self.observers[:] = [each for each in self.observers if not isinstance(each, AccessLog)]
        if wanted:
            self.observers.append(AccessLog())

    def breakers(self, settings: BreakerSettings) -> Breakers:
        """The same ones for as long as the settings are the same."""
        if self._breakers is None or self._breakers[0] != settings:
            self._breakers = settings, Breakers(settings, time.monotonic)
        return self._breakers[1]


@dataclass(frozen=True, slots=True)
class Deck:
    """What one reading of the configuration makes: the edge and what stands behind it. probes: an edge for them
    alone."""

    settings: GatewaySettings
    keyring: Keyring
    edge: Edge
    probes: Edge
    health: HealthHandler
    workers: Mapping[str, Worker]
    router: Router
    catalogue: Catalogue

    def stop(self) -> None:
        """It goes on serving, and says to everybody that it is about to end."""
        self.health.stopping = self.edge.stopping = True


def assemble(settings: GatewaySettings, parts: Parts, before: Deck | None = None) -> Deck:
    """before: the deck that this one will take the place of; it keeps working, and what need not change is shared with
    it. Make it inside a running loop. Raises `ConfigError`."""
    accounts = parts.accounts
    keyring = Keyring(
        configured_keys(settings) if settings.auth == "keys" else None,
        None if accounts is None else accounts.directory,
    )
    workers = _workers(settings, before)
    router = Router(settings.models, workers)
    if before is not None:
        router.take_over(before.router, _still_there(workers, before.workers))
    catalogue = Catalogue(workers, router, settings.catalogue_interval)
    health = HealthHandler(workers)
    namespaces = _no_namespace if accounts is None else accounts.directory.namespace
    models = ModelsHandler(router, catalogue, namespaces)
    bridge = Bridge(
        catalogue,
        namespaces,
        Network(workers, parts.breakers(settings.breaker), Budget(settings.retries)),
        parts.sessions,
        parts.limiter,
        timeout=settings.timeout,
        max_timeout=settings.max_timeout,
        max_body_bytes=settings.max_body_bytes,
        body_timeout=settings.body_timeout,
        max_tools=settings.max_tools,
    )
    keep_alive = settings.keep_alive_interval
    sessions = SessionsHandler(parts.sessions, keep_alive)
    probes = [
        Published("GET", "/healthz", health.live, operations.LIVE, versioned=False, guarded=False),
        Published("GET", "/readyz", health.ready, operations.READY, versioned=False, guarded=False),
    ]
    published = [
        Published("POST", "/chat/completions", GenerationHandler(CHAT, bridge, keep_alive).create, operations.CHAT),
        Published("POST", "/completions", GenerationHandler(TEXT, bridge, keep_alive).create, operations.COMPLETION),
        Published("POST", "/embeddings", SingleHandler(EMBEDDINGS, bridge).create, operations.EMBEDDINGS),
        Published("POST", "/moderations", SingleHandler(MODERATIONS, bridge).create, operations.MODERATION),
        Published("GET", "/models", models.list, operations.LIST_MODELS),
        Published("GET", "/models/{id:.+}", models.retrieve, operations.RETRIEVE_MODEL),
        Published("GET", "/sessions/{id}/events", sessions.events, operations.SESSION_EVENTS),
        *probes,
    ]
    if accounts is not None:
        published += _managed(accounts, settings)
    description = OpenApiHandler(published, keys=settings.auth == "keys")
    published.append(
        Published("GET", "/openapi.json", description.describe, operations.DESCRIBE, versioned=False, guarded=False)
    )
    table = _table(published)
    parts.places.most = settings.max_requests
    edge = Edge(table, keyring, settings.cors, parts.places, parts.observers)
    alone = Edge(_table(probes), keyring, CorsSettings(), Places())
    return Deck(settings, keyring, edge, alone, health, workers, router, catalogue)


def _table(published: Iterable[Published]) -> Table:
    return Table(endpoint for each in published for endpoint in each.endpoints())


def _workers(settings: GatewaySettings, before: Deck | None) -> Mapping[str, Worker]:
    """One of the deck before is used again where it would be made of the same. Raises `ConfigError`."""
    workers: dict[str, Worker] = {}
    for name, link in read_links(settings).items():
        old = None if before is None else before.workers.get(name)
        workers[name] = old if old is not None and old.link == link else Worker(name, link)
    return workers


def _still_there(workers: Mapping[str, Worker], before: Mapping[str, Worker]) -> list[str]:
    """Those that are where they were, be it over another channel."""
    return [
        name
        for name, worker in workers.items()
        if name in before and worker.link.endpoint.address == before[name].link.endpoint.address
    ]


async def open_limiter(settings: GatewaySettings, accounts: Accounts | None) -> Limiter:
    """Raises `ConfigError` for a Redis that is none, `CallError` while the database cannot be read."""
    shared = None
    if settings.redis:
        from gateway.limits.shared import SharedLimits  # noqa: PLC0415 (what it needs is there with Redis only)
        from gateway.redis import connect  # noqa: PLC0415

        shared = SharedLimits(connect(settings.redis), settings.limits.lease)
    holders = _no_holder if accounts is None else accounts.directory.holder
    limiter = Limiter(settings.limits, holders, Prices(settings.prices), shared)
    if shared is None and accounts is not None:
        limiter.remember(await accounts.spent())
    return limiter


def open_sessions(settings: GatewaySettings) -> Sessions:
    """In this process, or where all gateways have theirs. Raises `ConfigError` for a Redis that is none."""
    if not settings.redis:
        return SessionHub(settings.sessions) if share()[1] == 1 else NoSessions()
    from gateway.redis import connect  # noqa: PLC0415 (what it needs is there with Redis only)
    from gateway.shared_sessions import SharedSessions  # noqa: PLC0415

    patient = connect(settings.redis, timeout=_PATIENCE)
    return SharedSessions(connect(settings.redis), patient, settings.sessions)


def _no_holder(account: str) -> Holder | None:
    return None


async def open_accounts(settings: GatewaySettings) -> Accounts | None:
    """Where a database is configured; what it needs is not even imported where none is. Raises `ConfigError`."""
    if not settings.database:
        return None
    # It tells of every plugin as soon as it is imported; what matters comes as an error.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from gateway.accounts import Accounts  # noqa: PLC0415

    return await Accounts.open(settings)


def _no_namespace(account: str) -> Namespace:
    return NOTHING_ADDED


def _managed(accounts: Accounts, settings: GatewaySettings) -> list[Published]:
    """What an account adds for itself, and what it used. Raises `ConfigError` for a sealing key that is none."""
    from gateway.handlers.credentials import CredentialsHandler  # noqa: PLC0415
    from gateway.handlers.usage import UsageHandler  # noqa: PLC0415

    usage = UsageHandler(accounts.usage, settings.currency)
    workers = endpoints(settings)
    credentials = CredentialsHandler(accounts.names, accounts.directory, _seal_keys(workers))
    models = OwnModelsHandler(accounts.names, accounts.directory, workers)
    agents = AgentsHandler(accounts.names, accounts.directory)
    return [
        Published("GET", "/usage", usage.own, operations.USAGE),
        Published("GET", "/credentials", credentials.list, operations.LIST_CREDENTIALS),
        Published("POST", "/credentials", credentials.create, operations.CREATE_CREDENTIAL),
        Published("DELETE", "/credentials/{name:.+}", credentials.delete, operations.DELETE_CREDENTIAL),
        Published("POST", "/models", models.create, operations.ADD_MODEL),
        Published("DELETE", "/models/{id:.+}", models.delete, operations.REMOVE_MODEL),
        Published("GET", "/agents", agents.list, operations.LIST_AGENTS),
        Published("POST", "/agents", agents.create, operations.CREATE_AGENT),
        Published("GET", "/agents/{name:.+}", agents.get, operations.RETRIEVE_AGENT),
        Published("PUT", "/agents/{name:.+}", agents.replace, operations.REPLACE_AGENT),
        Published("PATCH", "/agents/{name:.+}", agents.change, operations.CHANGE_AGENT),
        Published("DELETE", "/agents/{name:.+}", agents.delete, operations.DELETE_AGENT),
    ]


def _seal_keys(workers: Mapping[str, WorkerEndpoint]) -> Mapping[str, bytes]:
    from trestle.sealed import SealError, key_bytes  # noqa: PLC0415

    keys: dict[str, bytes] = {}
    for name, endpoint in workers.items():
        if endpoint.seal_key:
            try:
                keys[name] = key_bytes(endpoint.seal_key)
            except SealError as error:
                raise ConfigError(f"gateway.workers.{name}.seal_key: {error}") from None
    return keys


def admin_edge(settings: AdminSettings, accounts: Accounts, currency: str) -> Edge:
    """The API for accounts, keys and usage, and nothing else."""
    from gateway.handlers.accounts import AccountsHandler  # noqa: PLC0415
    from gateway.handlers.usage import UsageHandler  # noqa: PLC0415

    handlers = AccountsHandler(accounts.accounts, accounts.directory), UsageHandler(accounts.usage, currency)
    table = Table(endpoint for handler in handlers for endpoint in handler.endpoints())
    return Edge(table, Keyring(admin_keys(settings)), CorsSettings(), Places())

"""The gateway's part of the configuration file."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, structs

from gateway.limits.policy import Limits
from trestle.config import ConfigError, check_address
from trestle.tls import ClientTls, ServerTls
from trestle.traces import TraceSettings

_ABOVE_ZERO: Final = (
    "timeout",
    "max_timeout",
    "keep_alive_interval",
    "stall_timeout",
    "head_timeout",
    "body_timeout",
    "max_body_bytes",
    "max_message_bytes",
    "catalogue_interval",
)
NEEDS_RESTART: Final = (
    "listen",
    "tls",
    "health",
    "reuse_port",
    "max_header_bytes",
    "max_connections",
    "head_timeout",
    "stall_timeout",
    "database",
    "admin",
    "directory",
    "redis",
    "limits",
    "ledger",
    "prices",
    "currency",
    "sessions",
    "grpc",
    "metrics",
    "traces",
)
"""Keys of which a new value counts only from the next start."""
LOOPBACK: Final = ("127.", "localhost:", "[::1]:")
Seconds = Annotated[float, Meta(ge=0)]


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place that can answer. worker: one of `gateway.workers`; upstream: one of its upstreams (empty: its first);
    model: its name there. weight: how often it is tried first, where a route's targets have weights."""

    worker: str
    model: str
    upstream: str = ""
    weight: Annotated[float, Meta(ge=0)] = 0.0


class OwnTarget(Target, frozen=True, kw_only=True):
    """A target of an account's own. credential: what it shows the upstream instead of the operator's, sealed."""

    account: str
    credential: bytes = b""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public model name and its targets, tried in order.

    In seconds, zero for none: timeout for a request in all (absent: gateway.timeout), first_token_timeout to the first
    content, idle_timeout between two pieces of it. hedge_after: seconds without content after which the next target is
    asked beside the first; whoever speaks first answers (zero: never). flush_interval: seconds for which a stream's
    pieces may wait for each other once it has begun (zero: each leaves as it comes).
    """

    name: str
    targets: list[Target]
    timeout: Seconds = 0.0
    first_token_timeout: Seconds = 0.0
    idle_timeout: Seconds = 0.0
    hedge_after: Seconds = 0.0
    flush_interval: Annotated[float, Meta(ge=0, le=10)] = 0.0


class WorkerEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A worker, where more is to be said than its address (any gRPC target). tls: how it is known, and knows us;
    absent: it is spoken to in the clear. token_env: the environment variable with the bearer token that it is shown.
    balance: which of the addresses behind a name is asked: each in turn, the one that the session's last request asked
    (`x-session-id`), or those more often that say they have less to do. resolve_interval: seconds between two look-ups
    of the name, at least. max_calls: how many at once (zero: no limit); queue: how many more may wait, queue_timeout
    seconds each. seal_key: the public key that credentials of accounts are sealed for; empty: they may have none
    here."""

    address: str
    tls: ClientTls | None = None
    token_env: str = ""
    seal_key: str = ""
    balance: Literal["round_robin", "session", "load"] = "round_robin"
    resolve_interval: Annotated[float, Meta(ge=0.1)] = 10.0
    max_calls: Annotated[int, Meta(ge=0)] = 0
    queue: Annotated[int, Meta(ge=0)] = 100
    queue_timeout: Seconds = 5.0


class GatewayTls(ServerTls, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """min_version: the oldest version of TLS that is spoken."""

    min_version: Literal["1.2", "1.3"] = "1.2"


class BreakerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a target is rested, while a route has others: after so many failures in a row, for `rest` seconds; one that
    asks to be left alone (Retry-After) is, up to `longest_rest` seconds."""

    failures: Annotated[int, Meta(ge=1)] = 10
    rest: Seconds = 10.0
    longest_rest: Seconds = 60.0


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many targets may be asked beyond each request's first: `ratio` for every request, on average, and `reserve`
    more at once. An outage of every target is not multiplied by more."""

    ratio: Annotated[float, Meta(ge=0)] = 1.0
    reserve: Annotated[float, Meta(ge=1)] = 100.0


class LimiterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How limits of keys and accounts are kept. when_unreachable: what happens to requests while Redis cannot be
    reached, `open`: they are let in, `closed`: they are turned away. default_output_tokens: reserved for an answer
    whose request does not say how long it may be. lease: seconds after which a killed gateway's requests no longer
    count as open."""

    when_unreachable: Literal["open", "closed"] = "open"
    default_output_tokens: Annotated[int, Meta(ge=0)] = 1024
    lease: Annotated[float, Meta(gt=0)] = 30.0


class KeySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key that opens the gateway. name: what logs, limits and the ledger call it. sha256: its SHA-256 in
    hexadecimal; or key_env: the environment variable that holds it. scopes: what it may do; manage concerns the
    models and agents of the account `default`. models: the public names that it may ask for (absent: all). limits:
    how much it may use."""

    name: str
    sha256: str = ""
    key_env: str = ""
    scopes: tuple[Literal["chat", "embeddings", "manage"], ...] = ("chat", "embeddings")
    models: list[str] | None = None
    limits: Limits = Limits()


class AdminSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The API for accounts and keys, `/admin/v1`. listen: where, a listener of its own. key_env: the environment
    variable that holds the key it asks for."""

    key_env: str
    listen: str = "127.0.0.1:8081"


class DirectorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How accounts and keys in memory keep up with the database. interval: seconds between two looks at what changed.
    lookups_per_second: how many unknown keys are looked up at most; remember_unknown: seconds for which one that the
    database does not know is refused without asking again. own_names: how many models, and how many agents, an account
    may have."""

    interval: Seconds = 1.0
    lookups_per_second: Annotated[float, Meta(ge=1)] = 50.0
    remember_unknown: Seconds = 10.0
    own_names: Annotated[int, Meta(ge=0)] = 1000


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of what happens in sessions is kept for listeners that come back: so many events of each at least, until
    nothing has happened in it for `idle` seconds; no more than `most` sessions."""

    events: Annotated[int, Meta(ge=1)] = 1000
    idle: Seconds = 3600.0
    most: Annotated[int, Meta(ge=1)] = 10_000


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a target's tokens cost: of each kind, a million of them, in units of gateway.currency. worker, upstream:
    empty for any; model: the name there, or its beginning and `*`. input, output: needed; cache_read, cache_write:
    absent, as input."""

    model: Annotated[str, Meta(min_length=1)]
    worker: str = ""
    upstream: str = ""
    input: Annotated[float, Meta(ge=0, le=1_000_000)]
    output: Annotated[float, Meta(ge=0, le=1_000_000)]
    cache_read: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None
    cache_write: Annotated[float, Meta(ge=0, le=1_000_000)] | None = None


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ledger, one row for each request, where there is a database. outbox: the folder in which rows wait for it,
    one for all gateways of a machine (empty: FILE.outbox beside SQLite's FILE, else trestle.outbox);
    max_outbox_bytes: how much each may have waiting there. flush_interval: seconds after which a row is in the outbox
    at the latest; interval: seconds between two deliveries to the database. keep_days: how long rows are kept (zero:
    for good)."""

    outbox: str = ""
    max_outbox_bytes: Annotated[int, Meta(ge=1024)] = 1024 * 1024 * 1024
    flush_interval: Annotated[float, Meta(gt=0)] = 0.1
    interval: Annotated[float, Meta(gt=0)] = 1.0
    keep_days: Annotated[int, Meta(ge=0)] = 0


class CorsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which browser origins may call. origins: exact, or `*` for any. max_age: seconds a preflight's answer holds."""

    origins: list[str] = []
    max_age: int = 600


class GatewaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`gateway:` in the file.

    listen: where HTTP is served. tls: with which certificate, on every listener; absent: in the clear. health:
    where `/healthz` and `/readyz`, and nothing else, are served in the clear as well, for probes that have no
    certificate; empty: nowhere. auth: `keys` asks every caller for a key of `keys`; `open` asks nobody, on loopback
    only. workers: name to gRPC target. models: the public catalogue; a worker that none of them names is listed by
    itself (its own ListModels). cors: which pages in browsers may call. timeout: seconds a request may take in all,
    unless it says otherwise itself (`x-request-timeout`, `grpc-timeout`), which it may up to max_timeout.
    keep_alive_interval: seconds of silence before a comment is sent on a stream. stall_timeout: seconds for which a
    client may read nothing of its answer. breaker: when targets are rested. retries: how many more may be asked.
    head_timeout: seconds that a connection may stand without a request whose head is whole. body_timeout: seconds
    for which a client may send nothing of a body that it has begun; all of it has `timeout`. max_connections: how
    many clients may be connected. After SIGTERM: drain_delay seconds of going on while `/readyz` says no, then
    drain_timeout for open answers to finish. reuse_port: lets several gateways share the port. max_body_bytes: the
    largest request body; max_header_bytes: the longest request line, and the longest header. max_tools: how many
    tools a request may offer. max_requests: how many are served at once. max_message_bytes: the largest gRPC
    message taken from a worker. catalogue_interval: seconds between two looks at the workers' own lists. database:
    where accounts, their keys, models and agents are kept, `sqlite:///FILE` or `postgresql://USER@HOST/NAME` (its
    password in PGPASSWORD); empty: there are none. admin: the API that makes accounts and keys. directory: how fast
    changes of them are known. redis: `redis://HOST:PORT` (its password in REDIS_PASSWORD), by which several
    gateways count limits and tell of sessions together; empty: each by itself. limits: how limits are kept. ledger:
    what is kept of requests; prices: what their tokens cost, in units of currency. sessions: what is kept of them.
    grpc: where their events are served over gRPC too; empty: nowhere. metrics: where Prometheus finds `/metrics`;
    empty: nowhere. log_level: the least that is written; log_format: as lines of text or as objects of JSON.
    access_log: whether each request has a line in the log. traces: where spans of requests go; absent: nowhere.
    """

    listen: str = "127.0.0.1:8080"
    tls: GatewayTls | None = None
    health: str = ""
    auth: Literal["open", "keys"] = "keys"
    keys: list[KeySettings] = []
    workers: dict[str, str | WorkerEndpoint]
    models: list[ModelSettings] = []
    cors: CorsSettings = CorsSettings()
    timeout: float = 600.0
    max_timeout: float = 3600.0
    keep_alive_interval: float = 15.0
    stall_timeout: float = 120.0
    breaker: BreakerSettings = BreakerSettings()
    retries: RetrySettings = RetrySettings()
    head_timeout: float = 75.0
    body_timeout: float = 30.0
    drain_delay: Seconds = 0.0
    drain_timeout: Seconds = 30.0
    reuse_port: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    max_header_bytes: Annotated[int, Meta(ge=1024)] = 16 * 1024
    max_tools: Annotated[int, Meta(ge=1)] = 1024
    max_requests: Annotated[int, Meta(ge=1)] = 10_000
    max_connections: Annotated[int, Meta(ge=1)] = 20_000
    max_message_bytes: int = 512 * 1024 * 1024
    catalogue_interval: float = 60.0
    database: str = ""
    admin: AdminSettings | None = None
    directory: DirectorySettings = DirectorySettings()
    redis: str = ""
    limits: LimiterSettings = LimiterSettings()
    ledger: LedgerSettings = LedgerSettings()
    prices: list[PriceSettings] = []
    currency: str = "USD"
    sessions: SessionSettings = SessionSettings()
    grpc: str = ""
    metrics: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    access_log: bool = False
    traces: TraceSettings | None = None


def check(settings: GatewaySettings) -> None:
    """What the types cannot say. Raises `ConfigError` with the path of the key at fault."""
    check_address("gateway.listen", settings.listen)
    if settings.auth == "open" and not settings.listen.startswith(LOOPBACK):
        raise ConfigError(
            f"gateway.auth: open is for loopback only, and gateway.listen is {settings.listen}; use keys"
        )
    if settings.auth == "keys" and not settings.keys and not settings.database:
        raise ConfigError("gateway.keys: auth is keys, and there is none; add one or, on loopback, set auth: open")
    if not settings.workers:
        raise ConfigError("gateway.workers: at least one worker is needed")
    if settings.admin is not None:
        check_address("gateway.admin.listen", settings.admin.listen)
        if not settings.database:
            raise ConfigError("gateway.admin: needs gateway.database, where accounts and keys are kept")
        if settings.admin.listen == settings.listen and not settings.listen.endswith(":0"):
            raise ConfigError("gateway.admin.listen: must be another address than gateway.listen")
    if settings.grpc:
        check_address("gateway.grpc", settings.grpc)
    if settings.metrics:
        check_address("gateway.metrics", settings.metrics)
    if settings.health:
        check_address("gateway.health", settings.health)
    if settings.directory.interval <= 0:
        raise ConfigError("gateway.directory.interval: must be more than zero")
    names: set[str] = set()
    for i, model in enumerate(settings.models):
        if not model.name:
            raise ConfigError(f"gateway.models[{i}].name: is empty")
        if model.name in names:
            raise ConfigError(f"gateway.models[{i}].name: {model.name!r} stands there twice")
        names.add(model.name)
        if not model.targets:
            raise ConfigError(f"gateway.models[{i}].targets: at least one target is needed")
        if 0 < model.idle_timeout <= model.flush_interval:
            raise ConfigError(f"gateway.models[{i}].flush_interval: must be less than idle_timeout")
        for j, target in enumerate(model.targets):
            if target.worker not in settings.workers:
                raise ConfigError(
                    f"gateway.models[{i}].targets[{j}].worker: {target.worker!r} is not one of gateway.workers"
                )
    for name in _ABOVE_ZERO:
        if getattr(settings, name) <= 0:
            raise ConfigError(f"gateway.{name}: must be more than zero")


def endpoints(settings: GatewaySettings) -> dict[str, WorkerEndpoint]:
    """Every worker by name, in the order of the file."""
    return {
        name: WorkerEndpoint(address=worker) if isinstance(worker, str) else worker
        for name, worker in settings.workers.items()
    }


def only_workers(settings: GatewaySettings, names: Collection[str]) -> GatewaySettings:
    """The settings with these workers alone; targets on others are left out, and models that have no other. Raises
    `ConfigError` for a name that is not one of gateway.workers."""
    for name in names:
        if name not in settings.workers:
            raise ConfigError(f"--workers: {name!r} is not one of gateway.workers")
    models = [
        structs.replace(model, targets=[target for target in model.targets if target.worker in names])
        for model in settings.models
    ]
    return structs.replace(
        settings,
        workers={name: address for name, address in settings.workers.items() if name in names},
        models=[model for model in models if model.targets],
    )

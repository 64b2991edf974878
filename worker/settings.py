"""The worker's part of the configuration file: its own keys and one block per family."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from trestle.config import ConfigError, check_address, unset
from trestle.tls import ServerTls
from trestle.traces import TraceSettings
from worker.callers import CallerSettings
from worker.family import RemoteFamily, Upstream

_LOOPBACK: Final = ("127.", "localhost:", "[::1]:", "unix:")


class MissingCredential(ConfigError):
    """A credential's environment variable is not set."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`worker:` in the file, beside one block per family (`openai: {upstreams: {name: ...}}`).

    listen: where gRPC is served. tls: with which certificate; absent: in the clear. callers: who may call; absent:
    whoever can. insecure: lets it listen off loopback with neither, on a network that is trusted. health: where
    grpc.health.v1, and nothing else, is served in the clear, for probes that speak no TLS; empty: nowhere.
    log_calls: which calls have a line in the log, with caller and usage: those of callers that are no gateways (a
    gateway keeps account itself), all, or none. log_level: the least that is written; log_format: as lines of text
    or as objects of JSON. metrics: where Prometheus finds `/metrics`; empty: nowhere. traces: where spans of calls
    go; absent: nowhere. name: what the gateway calls this worker (absent: its family), and seal_key_envs: the
    environment variables of the private keys that credentials of accounts are sealed for, the newest first
    (docs/accounts.md). max_message_bytes: the largest request taken; max_calls: how many calls are served at once.
    max_connection_age: seconds after which a connection, give or take a tenth, takes no new calls, so that callers
    connect anew, also to replicas that have come since (zero: never); max_connection_age_grace: seconds that its
    open calls have then (zero: as long as they take). After SIGTERM: drain_delay seconds of going on while health
    says NOT_SERVING, then drain_timeout for open calls to finish.
    """

    listen: str = "127.0.0.1:50051"
    tls: ServerTls | None = None
    callers: list[CallerSettings] = []
    insecure: bool = False
    health: str = ""
    max_message_bytes: int = 128 * 1024 * 1024
    max_calls: Annotated[int, Meta(ge=1)] = 10_000
    max_connection_age: Annotated[float, Meta(ge=0)] = 300.0
    max_connection_age_grace: Annotated[float, Meta(ge=0)] = 0.0
    drain_delay: Annotated[float, Meta(ge=0)] = 0.0
    drain_timeout: Annotated[float, Meta(ge=0)] = 30.0
    metrics: str = ""
    name: str = ""
    seal_key_envs: list[str] = []
    log_calls: Literal["direct", "all", "none"] = "direct"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    traces: TraceSettings | None = None


def check(settings: WorkerSettings) -> None:
    """What the types cannot say. Raises `ConfigError` with the path of the key at fault."""
    for name in ("listen", "health", "metrics"):
        address = getattr(settings, name)
        if address and not address.startswith("unix:"):
            check_address(f"worker.{name}", address)
    asks_certificates = settings.tls is not None and bool(settings.tls.client_ca)
    if asks_certificates and not settings.callers:
        raise ConfigError("worker.tls.client_ca: needs worker.callers, which say whose certificates may call")
    for i, caller in enumerate(settings.callers):
        where = f"worker.callers[{i}]"
        if not caller.name:
            raise ConfigError(f"{where}.name: is empty")
        if not caller.identities and not caller.token_envs:
            raise ConfigError(f"{where}: needs identities, token_envs or both")
        if caller.identities and not asks_certificates:
            raise ConfigError(f"{where}.identities: needs worker.tls.client_ca, or nobody shows a certificate")


def check_exposed(settings: WorkerSettings) -> None:
    """Raises `ConfigError` where others than this machine could call, and nothing would protect the worker."""
    protected = settings.tls is not None or settings.callers or settings.insecure
    if not protected and not settings.listen.startswith(_LOOPBACK):
        raise ConfigError(
            f"worker.listen: {settings.listen} is not loopback and nothing protects it; set worker.tls, or "
            "worker.callers with tokens, or worker.insecure: true if its network is trusted"
        )


def settings_type(families: Mapping[str, Any]) -> type[WorkerSettings]:
    """`WorkerSettings` with a typed block for each family that has upstreams; where there is None for a family, any
    block may stand."""
    fields: list[tuple[str, Any, Any]] = []
    for name, family in families.items():
        if family is None:
            fields.append((name, Any, None))
            continue
        upstream_type: Any = getattr(family, "upstream_type", None)
        if upstream_type is not None:
            block = msgspec.defstruct(
                f"{name.capitalize()}Block",
                [("upstreams", dict[str, upstream_type], msgspec.field(default_factory=dict))],
                frozen=True,
                kw_only=True,
                forbid_unknown_fields=True,
            )
            fields.append((name, block | None, None))
    return msgspec.defstruct(  # type: ignore[return-value]
        "WorkerSettings", fields, bases=(WorkerSettings,), frozen=True, kw_only=True, forbid_unknown_fields=True
    )


def upstreams_of(
    settings: WorkerSettings, family: RemoteFamily[Any], environment: Mapping[str, str] = os.environ
) -> list[Upstream[Any]]:
    """The family's upstreams in the order of the file, each with its credential.

    Raises `ConfigError` when there are none, a base_url is not one, or a credential's variable is not set.
    """
    block = getattr(settings, family.name)
    where = f"worker.{family.name}.upstreams"
    if block is None or not block.upstreams:
        raise ConfigError(f"{where}: the {family.name} family needs at least one upstream")
    upstreams = []
    for name, upstream in block.upstreams.items():
        if not upstream.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"{where}.{name}.base_url: must begin with http:// or https://")
        variable = upstream.credential_env
        credential = environment.get(variable, "") if variable else ""
        if variable and not credential:
            raise MissingCredential(f"{where}.{name}.credential_env: {unset(variable)}")
        cleaned = msgspec.structs.replace(upstream, base_url=upstream.base_url.rstrip("/"))
        upstreams.append(Upstream(name, cleaned, credential))
    return upstreams

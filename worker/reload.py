"""The configuration read anew while the worker serves. Calls go on with what they have begun with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from msgspec import structs

from trestle import logs
from worker.callers import Callers
from worker.calls import Calls
from worker.credentials import tokens_for
from worker.family import LocalFamily, RemoteFamily
from worker.service import RemoteService
from worker.settings import WorkerSettings, upstreams_of
from worker.upstream import UpstreamClient
from worker.vault import vault_of

log: Final = logging.getLogger("worker")
NEEDS_RESTART: Final = (
    "listen",
    "tls",
    "insecure",
    "health",
    "metrics",
    "traces",
    "name",
    "max_message_bytes",
    "max_connection_age",
    "max_connection_age_grace",
)


def clients_of(
    family: RemoteFamily[Any], settings: WorkerSettings, before: Mapping[str, UpstreamClient[Any]]
) -> dict[str, UpstreamClient[Any]]:
    """The family's upstreams as clients, in the order of the file. before: those that are there; one that would be made
    of the same is used again. Inside a running loop. Raises `ConfigError`."""
    clients: dict[str, UpstreamClient[Any]] = {}
    for upstream in upstreams_of(settings, family):
        old = before.get(upstream.name)
        same = old is not None and old.upstream == upstream
        clients[upstream.name] = old if same and old else UpstreamClient(upstream, tokens_for(family, upstream))
    return clients


class Reload:
    """settings: that count now. service: None for a family that has no upstreams. callers: None where anybody may
    call."""

    def __init__(
        self,
        family: RemoteFamily[Any] | LocalFamily,
        settings: WorkerSettings,
        read: Callable[[], WorkerSettings],
        service: RemoteService | None,
        callers: Callers | None,
        calls: Calls,
    ) -> None:
        self.settings = settings
        self._family: Any = family
        self._read = read
        self._service = service
        self._callers = callers
        self._calls = calls

    async def change_over(self) -> None:
        """Raises `ConfigError`; then nothing has changed."""
        new = self._as_far_as_now(self._read())
        known = Callers(new.callers)
        gone: list[UpstreamClient[Any]] = []
        if self._service is not None:
            before = self._service.clients
            clients = clients_of(self._family, new, before)
            vault = vault_of(new.name or self._family.name, new.seal_key_envs)
            self._service.renew(clients, vault)
            kept = set(clients.values())
            gone = [client for client in before.values() if client not in kept]
        if self._callers is not None:
            self._callers.become(known)
        self._calls.limit(new.max_calls, new.log_calls)
        logs.configure(new.log_format, new.log_level, service="worker", family=self._family.name)
        self.settings = new
        for client in gone:
            await client.close()  # what is open closes when its call has ended

    def _as_far_as_now(self, new: WorkerSettings) -> WorkerSettings:
        """The new settings, but for what needs a restart."""
        old = self.settings
        later = [name for name in NEEDS_RESTART if getattr(new, name) != getattr(old, name)]
        if bool(new.callers) != bool(old.callers):  # whether anybody is asked at all
            later.append("callers")
        if later:
            log.warning("worker.%s: the new value counts from the next start", ", worker.".join(later))
        return structs.replace(new, **{name: getattr(old, name) for name in later})

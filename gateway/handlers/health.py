"""`GET /healthz`: the process lives. `GET /readyz`: it is of use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from gateway.exchange import Exchange
from gateway.reply import Reply
from gateway.workers import Worker

_TIMEOUT = 2.0


class HealthHandler:
    """stopping: true once the process has been told to end."""

    def __init__(self, workers: Mapping[str, Worker]) -> None:
        self._workers = workers
        self.stopping = False

    async def live(self, exchange: Exchange) -> Reply:
        return exchange.json({"status": "ok"})

    async def ready(self, exchange: Exchange) -> Reply:
        """200 while at least one worker serves, else 503; either way says which do."""
        serving = await asyncio.gather(*(worker.serves(_TIMEOUT) for worker in self._workers.values()))
        ready = any(serving) and not self.stopping
        status = "ready" if ready else "stopping" if self.stopping else "no worker serves"
        workers = dict(zip(self._workers, serving, strict=True))
        return exchange.json({"status": status, "workers": workers}, 200 if ready else 503)

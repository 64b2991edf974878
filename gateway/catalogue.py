"""Keeps the router's knowledge of what the workers list."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from typing import Final

import grpc

from gateway.openai.errors import model_not_found
from gateway.routing import Route, Router
from gateway.workers import Worker
from trestle.errors import CallError, Reason
from trestle.logs import failure

log = logging.getLogger("gateway")
_TIMEOUT = 10.0
_FIRST_PAUSE = 0.1
# So long after the start a worker that was never reached may still be starting, too; then it is simply not there.
_PATIENCE = 30.0
_UNIMPLEMENTED: Final = int(grpc.StatusCode.UNIMPLEMENTED.value[0])


class Catalogue:
    """Asks the workers of the catalogue for their models: soon again while one has not answered, then each `interval`
    seconds. The others are asked once, when a name demands it."""

    def __init__(self, workers: Mapping[str, Worker], router: Router, interval: float) -> None:
        self._workers = workers
        self._router = router
        self._interval = interval
        self._patient_until = time.monotonic() + _PATIENCE
        self._complaints: dict[str, tuple[Reason, int]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await self.ask(self._router.catalogue_workers)
            pause = min(pause * 2, self._interval) if self._router.unlisted else self._interval
            await asyncio.sleep(pause)

    async def resolve(self, name: str) -> Route:
        """As `Router.resolve`, after a look at workers never heard of, whose name it may be. Raises `CallError`."""
        try:
            return self._router.resolve(name)
        except CallError:
            wanted = self._router.wanted(name)
            if not wanted:
                raise
        await self.ask(wanted)
        return self._router.resolve(name, patient=time.monotonic() < self._patient_until)

    async def resolve_added(self, route: Route, name: str) -> Route:
        """The route of a model that an account added, under the name asked for, which may have options behind it.
        Raises `CallError`: MODEL_NOT_FOUND."""
        if "?" not in name:
            return route
        unheard = [target.worker for target in route.targets if not self._router.knows(target.worker)]
        if unheard:
            await self.ask(unheard)
        with_options = self._router.with_options(route, name)
        if with_options is None:
            raise model_not_found(name)
        return with_options

    async def ask(self, names: Iterable[str]) -> None:
        """Asks these workers now; one that cannot be reached keeps the list it gave before."""
        await asyncio.gather(*(self._ask(self._workers[name]) for name in names))

    async def _ask(self, worker: Worker) -> None:
        try:
            models = await worker.list_models(_TIMEOUT)
        except CallError as error:
            self._complain(worker.name, error)
            reached = error.reason is not Reason.UNSPECIFIED or error.status == _UNIMPLEMENTED
            if reached and not self._router.knows(worker.name):
                self._router.update(worker.name, ())
        else:
            self._complaints.pop(worker.name, None)
            self._router.update(worker.name, models)

    def _complain(self, worker: str, error: CallError) -> None:
        """Says once what keeps happening; gRPC words the same failure anew each time."""
        kind = (error.reason, error.status)
        if self._complaints.get(worker) != kind:
            self._complaints[worker] = kind
            log.warning("the worker %s does not list its models", worker, extra=failure(error))

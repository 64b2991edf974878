"""A request's way over the targets of its route: one call at a time, the step to the next, limits in time, hedging."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gateway.attempt import Attempt
from gateway.breaker import Breakers
from gateway.routing import Route
from gateway.rpc.call import Metadata, Taker
from gateway.rpc.method import Method
from gateway.settings import OwnTarget, RetrySettings, Target
from gateway.workers import Worker
from trestle.errors import CallError, Reason
from trestle.logs import failure

if TYPE_CHECKING:
    from gateway.tracing import Trace

log = logging.getLogger("gateway")
_IGNORED_PARAMS: Final = "x-trestle-ignored-params"
CREDENTIAL: Final = "x-trestle-credential-bin"  # as trestle.sealed says, which only who seals need import
ATTEMPTS: Final = "x-trestle-attempts"
FLUSH_INTERVAL: Final = "x-trestle-flush-interval"


class Budget:
    """What requests have saved up for asking further targets."""

    __slots__ = ("_ratio", "_reserve", "_saved")

    def __init__(self, settings: RetrySettings) -> None:
        self._ratio = settings.ratio
        self._reserve = self._saved = settings.reserve

    def earn(self) -> None:
        """A request begins."""
        self._saved = min(self._reserve, self._saved + self._ratio)

    def spend(self) -> bool:
        """One more target is to be asked; false where that may not be."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True


@dataclass(frozen=True, slots=True)
class Network:
    """What every call needs to know of the other side."""

    workers: Mapping[str, Worker]
    breakers: Breakers
    budget: Budget


class RoutedCall:
    """One request on its way over a route.

    method: a worker's method for it; single: it has one response. request: its model and upstream are set for each
    target. timeout: seconds for all targets together. ignored: parameters that did not get as far as a worker, quoted
    for a header. trace: the request's; None where there is none. attempts: every target that was asked; current: the
    one that answers, or was asked last. `read` it to the end, or await its `single` response; `close` it on every way
    out.
    """

    __slots__ = (
        "_at",
        "_deadline",
        "_loop",
        "_metadata",
        "_method",
        "_network",
        "_open",
        "_order",
        "_request",
        "_route",
        "_single",
        "_trace",
        "attempts",
        "current",
        "ignored",
    )

    def __init__(
        self,
        network: Network,
        route: Route,
        method: Callable[[Worker], Method],
        request: Any,
        timeout: float,
        metadata: Metadata,
        *,
        single: bool,
        trace: Trace | None = None,
    ) -> None:
        self._trace = trace
        self.attempts: list[Attempt] = []
        self.ignored: list[str] = []
        self._network = network
        self._route = route
        self._order = route.targets if len(route.targets) == 1 else network.breakers.order(by_weight(route.targets))
        self._method = method
        self._single = single
        self._request = request
        self._metadata = metadata
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + timeout
        self._at = 0
        network.budget.earn()
        self._open: Attempt | None = None
        self.current: Attempt | None = None

    @property
    def target(self) -> Target:
        """Who is asked now."""
        return self._order[self._at]

    @property
    def spent(self) -> bool:
        """Whether our own tries have been several, so that another round of them would only multiply the load."""
        return sum(attempt.tries for attempt in self.attempts) > 1

    async def single(self) -> Any:
        """The response of a method that has one, from the first target that gives it. Raises `CallError`."""
        while True:
            try:
                return await self.read()
            except CallError as error:
                if not self.move_on(error):
                    raise

    async def read(self) -> Any:
        """The next batch of chunks; None at the end. Raises `CallError`."""
        attempt = self._open or await self._opened()
        known = attempt.spoke
        response = await attempt.read()
        if attempt.spoke and not known:
            self._network.breakers.succeeded(attempt.target)
        return response

    async def pass_to(self, taker: Taker) -> bool:
        """Gives the taker the batches of chunks as they come; see `Attempt.pass_to`."""
        attempt = self._open or await self._opened()
        known = attempt.spoke
        ended = await attempt.pass_to(taker)
        if attempt.spoke and not known:
            self._network.breakers.succeeded(attempt.target)
        return ended

    async def _opened(self) -> Attempt:
        self._open = self.current = await self._begin()
        return self._open

    async def headers(self) -> dict[str, str]:
        """What the answer's HTTP headers say of its way here. Ask once a response has come."""
        ignored = list(self.ignored)
        if self._open is not None:
            for name, value in await self._open.call.initial_metadata() or ():
                if name == _IGNORED_PARAMS:
                    ignored += (value if isinstance(value, str) else value.decode("ascii", "replace")).split(",")
                elif name == ATTEMPTS and value.isdigit():
                    self._open.tries = int(value)
        headers = self.attempt_headers()
        if ignored:
            headers[_IGNORED_PARAMS] = ",".join(dict.fromkeys(ignored))
        return headers

    def attempt_headers(self) -> dict[str, str]:
        """How often anybody was asked: targets, and upstreams once more by a target's worker itself."""
        return {ATTEMPTS: str(sum(attempt.tries for attempt in self.attempts))}

    def move_on(self, error: CallError) -> bool:
        """Takes note of the failure; true when the next target may be asked: it may help, and time is left."""
        target = self.target
        self._note(target, error)
        if self.current is not None and self.current.error is None:
            self.current.error = error
        last = self._at == len(self._order) - 1
        if last or not error.another_may_help or self._loop.time() >= self._deadline:
            return False
        if not self._network.budget.spend():
            log.warning("a target failed, and no more may be asked now", extra=_failed(target, error))
            return False
        log.info("a target failed, moving on", extra=_failed(target, error))
        self.close()
        self._at += 1
        return True

    def _note(self, target: Target, error: CallError) -> None:
        if error.another_may_help:
            self._network.breakers.failed(target, error.retry_after)
        else:
            self._network.breakers.released(target)

    def close(self) -> None:
        """Ends what still runs."""
        if self._open is not None:
            if not self._open.spoke:
                self._network.breakers.released(self._open.target)
            self._open.close()
            self._open = None

    async def _begin(self) -> Attempt:
        attempt = await self._start(self._at)
        if self._route.hedge_after and self._at < len(self._order) - 1:
            return await self._race(attempt)
        return attempt

    async def _start(self, at: int) -> Attempt:
        """A call to the target at that place of the order. Raises `CallError` where there is no room for it."""
        target = self._order[at]
        worker = self._network.workers[target.worker]
        await worker.acquire()
        self._network.breakers.asked(target)
        request = self._request
        request.model = target.model
        request.upstream = target.upstream
        waiting = len(self._order) - 1 - at
        metadata = (*self._metadata, ("x-trestle-attempts-left", str(waiting))) if waiting else self._metadata
        if self._route.flush_interval and not self._single:
            metadata = (*metadata, (FLUSH_INTERVAL, f"{self._route.flush_interval:g}"))
        if worker.metadata:
            metadata = (*metadata, *worker.metadata)
        if type(target) is OwnTarget:
            metadata = (*metadata, (CREDENTIAL, target.credential))
        method = self._method(worker)
        span = None
        if self._trace is not None:
            span, carried = self._trace.attempt(target, method.name)
            metadata = (*metadata, *carried)
        timeout = self._deadline - self._loop.time()
        call = method(request, timeout, metadata)
        route = self._route
        attempt = Attempt(target, worker, call, self._single, route.first_token_timeout, route.idle_timeout)
        attempt.span = span
        self.attempts.append(attempt)
        self.current = attempt
        return attempt

    async def _race(self, attempt: Attempt) -> Attempt:
        """The first of two to speak, the second one asked when the first was silent for the route's `hedge_after`."""
        other: Attempt | None = None
        winner: Attempt | None = None
        running = {asyncio.create_task(attempt.speak()): attempt}
        try:
            done, _ = await asyncio.wait(running, timeout=self._route.hedge_after)
            if not done and self._network.budget.spend():
                other = await self._second()
            if not done:
                if other is not None:
                    running[asyncio.create_task(other.speak())] = other
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                if all(task.exception() is not None for task in done):
                    done, _ = await asyncio.wait(running)
            good = [running[task] for task in done if task.exception() is None]
            if not good:
                error = attempt.error
                if other is not None and error is not None:
                    self._note(attempt.target, error)
                    self._at += 1  # both have been asked
                    error = other.error
                raise error or AssertionError("who failed says why")
            winner = good[0]
        finally:
            for task in running:
                task.cancel()
            for each in (attempt, other):
                if each is not None and each is not winner:
                    each.lost = winner is not None
                    if winner is not None and each.error is not None:
                        self._note(each.target, each.error)
                    else:
                        self._network.breakers.released(each.target)
                    each.close()
        if other is not None:
            self._order = (*(t for t in self._order if t != winner.target), winner.target)
            self._at = len(self._order) - 1
        self._network.breakers.succeeded(winner.target)
        return winner

    async def _second(self) -> Attempt | None:
        """The call to the next target beside the first; None where it has no room."""
        try:
            return await self._start(self._at + 1)
        except CallError:
            return None


def _failed(target: Target, error: CallError) -> dict[str, object]:
    """As fields of a line in the log."""
    return {**failure(error), "worker": target.worker, "upstream": target.upstream, "target_model": target.model}


def by_weight(targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """The targets with one of them drawn to the front, if any has a weight; the others keep their order."""
    weights = [target.weight for target in targets]
    if not any(weights):
        return targets
    first = random.choices(targets, weights)[0]  # noqa: S311 (load, not secrets)
    return (first, *(target for target in targets if target is not first))


def ended_early() -> CallError:
    """A call that ended with OK and yet without its finish: a worker that does not keep the contract."""
    return CallError(Reason.UPSTREAM_TRUNCATED, "The worker ended the answer without a finish.")

"""Targets that keep failing are rested: a circuit breaker each. Pure; the clock is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.settings import BreakerSettings, Target


class _Circuit:
    """One target's. failures: in a row. until: when its rest ends. probing: one request is finding out."""

    __slots__ = ("failures", "probing", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = 0.0
        self.probing = False


class Breakers:
    """Which targets to ask first. A target is closed (in use), open (resting) or half-open: its rest is over, and one
    request finds out whether it is well.

    A resting target is asked only when no other is left: the last cause says more than that somebody rests.
    """

    def __init__(self, settings: BreakerSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._circuits: dict[Target, _Circuit] = {}

    def order(self, targets: Iterable[Target]) -> tuple[Target, ...]:
        """The targets in the order in which to try them: those in use as they come, then those that rest."""
        if not self._circuits:
            return tuple(targets)
        now = self._clock()
        ready: list[Target] = []
        resting: list[Target] = []
        for target in targets:
            circuit = self._circuits.get(target)
            is_open = circuit is not None and circuit.failures >= self._settings.failures
            if circuit is not None and is_open and (now < circuit.until or circuit.probing):
                resting.append(target)
            else:
                ready.append(target)
        return (*ready, *resting)

    def asked(self, target: Target) -> None:
        """A request goes there now; if its rest is over, this one finds out, and others wait for what it finds."""
        if self._circuits:
            circuit = self._circuits.get(target)
            if circuit is not None:
                circuit.probing = True

    def succeeded(self, target: Target) -> None:
        """It answered: it is well."""
        if self._circuits:
            self._circuits.pop(target, None)

    def failed(self, target: Target, retry_after: float | None) -> None:
        """It failed in a way that another may cure; retry_after: seconds that it asked to be left alone, if it did."""
        circuit = self._circuits.setdefault(target, _Circuit())
        circuit.failures += 1
        circuit.probing = False
        rest = self._settings.rest
        asked = min(retry_after or 0.0, self._settings.longest_rest)
        if asked:
            rest = max(asked, rest if circuit.failures >= self._settings.failures else 0.0)
            circuit.failures = max(circuit.failures, self._settings.failures)
        circuit.until = self._clock() + rest

    def released(self, target: Target) -> None:
        """Nothing was found out: the request went elsewhere or away."""
        circuit = self._circuits.get(target)
        if circuit is not None:
            circuit.probing = False

    def resting(self) -> list[Target]:
        """The targets that rest now."""
        now = self._clock()
        enough = self._settings.failures
        return [t for t, circuit in self._circuits.items() if circuit.failures >= enough and now < circuit.until]

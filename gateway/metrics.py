"""The gateway's metrics for Prometheus: told of every request once, at its end; nothing is counted for a chunk.

Labels are bounded: `model` is a name of the configuration or of a worker's list, else `other` (an account's own, or one
that does not exist).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.limits.limiter import Limiter
from gateway.record import Outcome, Record
from gateway.settings import Target
from trestle.scrape import Counts, Now, Times

_PARTS: Final = ("cache_read", "cache_write", "reasoning")
_OTHER: Final = "other"
_MOST_MODELS: Final = 500
_CANCEL_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Metrics:
    """An `Observer`. known: whether a public model name is one that everybody may ask for."""

    def __init__(self, metrics: CollectorRegistry, known: Callable[[str], bool]) -> None:
        self._known = known
        self._models: dict[str, str] = {}
        self._open = 0
        self._requests = Counts(
            "trestle_requests",
            "Requests that ended, by what became of them. status: of HTTP, 0 where none was sent.",
            ("kind", "model", "outcome", "status"),
            metrics,
        )
        self._seconds = Times(
            "trestle_request_seconds", "From a request's beginning to its end.", ("kind", "model"), metrics
        )
        self._first = Times(
            "trestle_first_token_seconds",
            "From a streamed request's beginning to its first content.",
            ("model",),
            metrics,
        )
        self._tokens = Counts(
            "trestle_tokens", "Tokens used, by all attempts, estimates included.", ("model", "type"), metrics
        )
        self._attempts = Counts(
            "trestle_attempts",
            "Calls to workers. reason: why one failed, `lost` for one that lost a race, empty for one that did not.",
            ("worker", "upstream", "reason"),
            metrics,
        )
        Now("trestle_open_streams", "Requests that are being answered now.", lambda: self._open, metrics)
        self._cancelled = Times(
            "trestle_cancel_seconds",
            "From a client's disconnect to the cancel of all that was done for it.",
            (),
            metrics,
            _CANCEL_SECONDS,
        )

    def began(self, record: Record) -> None:
        """One more."""
        self._open += 1

    def ended(self, record: Record) -> None:
        """Counts all of it."""
        self._open -= 1
        model = self._model(record.model)
        outcome = record.outcome
        self._requests.add((record.kind, model, outcome.value, str(record.status)))
        self._seconds.observe((record.kind, model), record.ended - record.began)
        if record.first:
            self._first.observe((model,), record.first - record.began)
        for attempt in record.attempts:
            target = attempt.target
            reason = "lost" if attempt.lost else attempt.error.label if attempt.error is not None else ""
            self._attempts.add((target.worker, target.upstream, reason))
        total = record.total()
        if total is not None:
            tokens = self._tokens
            tokens.add((model, "input"), total.input_tokens)
            tokens.add((model, "output"), total.output_tokens)
            for name in _PARTS:
                count = getattr(total, f"{name}_tokens")
                if count:
                    tokens.add((model, name), count)
        if outcome is Outcome.CANCELLED:
            lost = getattr(record.exchange.http.protocol, "lost", 0.0)
            if lost:
                self._cancelled.observe((), time.perf_counter() - lost)

    def _model(self, name: str) -> str:
        known = self._models.get(name)
        if known is None:
            known = name if self._known(name) and len(self._models) < _MOST_MODELS else _OTHER
            if known is not _OTHER:
                self._models[name] = known
        return known


class State:
    """What is so when it is asked for. resting: the targets that rest. rows: of the ledger, that wait and that are
    lost; None where there is none. refused: whether the last reading of the configuration was. queues: how many calls
    wait for each worker."""

    def __init__(
        self,
        resting: Callable[[], Collection[Target]],
        limiter: Limiter,
        rows: Callable[[], tuple[int, int]] | None,
        refused: Callable[[], bool],
        queues: Callable[[], Mapping[str, int]],
    ) -> None:
        self._queues = queues
        self._resting = resting
        self._limiter = limiter
        self._rows = rows
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks for it."""
        resting = GaugeMetricFamily(
            "trestle_target_resting", "1 for a target that rests.", labels=["worker", "upstream", "model"]
        )
        for target in self._resting():
            resting.add_metric([target.worker, target.upstream, target.model], 1)
        yield resting
        reachable = "0 while the Redis that keeps limits cannot be reached."
        yield GaugeMetricFamily("trestle_limits_reachable", reachable, value=int(self._limiter.reachable))
        refused = "1 when the last configuration was refused, and the one before counts."
        yield GaugeMetricFamily("trestle_config_refused", refused, value=int(self._refused()))
        queued = GaugeMetricFamily("trestle_queue", "Calls that wait until there is room.", labels=["worker"])
        for worker, count in self._queues().items():
            queued.add_metric([worker], count)
        yield queued
        if self._rows is not None:
            waiting, lost = self._rows()
            yield GaugeMetricFamily("trestle_ledger_waiting_rows", "Rows not in the database yet.", value=waiting)
            yield CounterMetricFamily("trestle_ledger_lost_rows", "Rows that will never be there.", value=lost)

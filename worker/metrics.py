"""The worker's metrics for Prometheus: told of every call once, at its end."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trestle.scrape import SECONDS
from worker.calls import CallMetadata, Calls

_TYPES: Final = ("input", "output")


class Metrics:
    """family: which this worker serves. calls: those that are open."""

    def __init__(self, metrics: CollectorRegistry, family: str, calls: Calls) -> None:
        self._family = family
        self._calls = Counter(
            "trestle_worker_calls",
            "Calls that ended, by their status of gRPC.",
            ["family", "method", "upstream", "status"],
            registry=metrics,
        )
        self._seconds = Histogram(
            "trestle_worker_call_seconds",
            "From a call's beginning to its end.",
            ["family", "method"],
            buckets=SECONDS,
            registry=metrics,
        )
        self._tokens = Counter(
            "trestle_worker_tokens",
            "Tokens that answers told of, or were guessed to have taken.",
            ["family", "upstream", "type"],
            registry=metrics,
        )
        opened = Gauge("trestle_open_streams", "Calls that are being answered now.", registry=metrics)
        opened.set_function(lambda: calls.open)

    def ended(self, call: CallMetadata, seconds: float) -> None:
        """One call has."""
        method = call.method
        upstream = call.upstream
        self._calls.labels(self._family, method, upstream, call.status).inc()
        self._seconds.labels(self._family, method).observe(seconds)
        if call.usage is not None:
            for name, count in zip(_TYPES, (call.usage.input_tokens, call.usage.output_tokens), strict=True):
                if count:
                    self._tokens.labels(self._family, upstream, name).inc(count)

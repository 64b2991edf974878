"""The worker's metrics for Prometheus: told of every call once, at its end."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from trestle.scrape import Counts, Now, Times
from worker.calls import CallMetadata, Calls


class Metrics:
    """family: which this worker serves. calls: those that are open."""

    def __init__(self, metrics: CollectorRegistry, family: str, calls: Calls) -> None:
        self._family = family
        self._calls = Counts(
            "trestle_worker_calls",
            "Calls that ended, by their status of gRPC.",
            ("family", "method", "upstream", "status"),
            metrics,
        )
        self._seconds = Times(
            "trestle_worker_call_seconds", "From a call's beginning to its end.", ("family", "method"), metrics
        )
        self._tokens = Counts(
            "trestle_worker_tokens",
            "Tokens that answers told of, or were guessed to have taken.",
            ("family", "upstream", "type"),
            metrics,
        )
        Now("trestle_open_streams", "Calls that are being answered now.", lambda: calls.open, metrics)

    def ended(self, call: CallMetadata, seconds: float) -> None:
        """One call has."""
        family, method, upstream, usage = self._family, call.method, call.upstream, call.usage
        self._calls.add((family, method, upstream, call.status))
        self._seconds.observe((family, method), seconds)
        if usage is not None:
            self._tokens.add((family, upstream, "input"), usage.input_tokens)
            self._tokens.add((family, upstream, "output"), usage.output_tokens)

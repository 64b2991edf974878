"""The worker's metrics for Prometheus: told of every call once, at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from trestle.scrape import Counts, Now, Times
from worker.calls import CallMetadata, Calls
from worker.upstream import UpstreamClient


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
        self._first = Times(
            "trestle_worker_first_token_seconds",
            "From a call's beginning to the first content of its stream.",
            ("family", "upstream"),
            metrics,
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
        if call.began_at:
            self._first.observe((family, upstream), call.seconds_to_first())
        if usage is not None:
            self._tokens.add((family, upstream, "input"), usage.input_tokens)
            self._tokens.add((family, upstream, "output"), usage.output_tokens)


class Queues:
    """How many calls wait for each upstream, when it is asked. clients: those that are there now."""

    def __init__(self, clients: Callable[[], Mapping[str, UpstreamClient[Any]]]) -> None:
        self._clients = clients

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As prometheus_client asks for it."""
        queued = GaugeMetricFamily("trestle_queue", "Calls that wait until there is room.", labels=["upstream"])
        for name, client in self._clients().items():
            queued.add_metric([name], client.waiting)
        yield queued

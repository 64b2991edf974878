"""Where Prometheus finds a service's metrics: a listener of their own, in a thread of its own."""

from __future__ import annotations

import contextlib
import ssl
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.utils import floatToGoString

from trestle import __version__
from trestle.config import cannot_listen
from trestle.findings import decoded

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Buckets of times: from an answer out of memory to the longest request."""

_PAUSE: Final = 0.2
"""Seconds until a connection is accepted that could not be: there are no files left to open."""
Labels = tuple[str, ...]


class Counts:
    """A counter, added to from one thread alone: a dictionary's price, where prometheus_client's own takes a lock for
    each label and each number. Registered on the way in."""

    def __init__(self, name: str, help_text: str, labels: Sequence[str], metrics: CollectorRegistry) -> None:
        """name: without `_total`."""
        self._told = (name, help_text)
        self._labels = tuple(labels)
        self._counts: dict[Labels, float] = {}
        metrics.register(self)

    def add(self, labels: Labels, number: float = 1) -> None:
        """So many more."""
        counts = self._counts
        counts[labels] = counts.get(labels, 0) + number

    def collect(self) -> Iterator[CounterMetricFamily]:
        """As prometheus_client asks for it, from a thread of its own."""
        family = CounterMetricFamily(*self._told, labels=self._labels)
        for labels, count in list(self._counts.items()):
            family.add_metric(labels, count)
        yield family


class Times:
    """A histogram of seconds, as cheap as `Counts`."""

    def __init__(
        self,
        name: str,
        help_text: str,
        labels: Sequence[str],
        metrics: CollectorRegistry,
        buckets: Sequence[float] = SECONDS,
    ) -> None:
        self._told = (name, help_text)
        self._labels = tuple(labels)
        self._buckets = tuple(buckets)
        self._seen: dict[Labels, list[float]] = {} if labels else {(): self._empty()}
        metrics.register(self)

    def observe(self, labels: Labels, seconds: float) -> None:
        """One more."""
        seen = self._seen.get(labels)
        if seen is None:
            seen = self._seen[labels] = self._empty()
        seen[bisect_left(self._buckets, seconds)] += 1
        seen[-1] += seconds

    def _empty(self) -> list[float]:
        """A number for each bucket, one for what is beyond the last, and the sum."""
        return [0.0] * (len(self._buckets) + 2)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As prometheus_client asks for it, from a thread of its own."""
        family = HistogramMetricFamily(*self._told, labels=self._labels)
        for labels, seen in list(self._seen.items()):
            *numbers, total = seen
            buckets: list[tuple[str, float]] = []
            sofar = 0.0
            for bound, number in zip((*self._buckets, float("inf")), numbers, strict=True):
                sofar += number
                buckets.append((_said(bound), sofar))
            family.add_metric(labels, buckets, total)
        yield family


class Now:
    """A gauge that is asked for its value when it is told."""

    def __init__(self, name: str, help_text: str, value: Callable[[], float], metrics: CollectorRegistry) -> None:
        self._told = (name, help_text)
        self._value = value
        metrics.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As prometheus_client asks for it."""
        yield GaugeMetricFamily(*self._told, value=self._value())


class Certificates:
    """When certificates end. files: by the path of the settings that name them, asked for each time."""

    def __init__(self, files: Callable[[], Mapping[str, str]], metrics: CollectorRegistry) -> None:
        self._files = files
        metrics.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """As prometheus_client asks for it. A file that cannot be read is not told of."""
        ends = GaugeMetricFamily(
            "trestle_certificate_end_seconds", "When the certificate ends, in Unix seconds.", labels=["certificate"]
        )
        for where, file in self._files().items():
            with contextlib.suppress(OSError):
                ends.add_metric([where], ssl.cert_time_to_seconds(decoded(file)["notAfter"]))
        yield ends


def _said(bound: float) -> str:
    """As Prometheus writes a bucket's bound."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


class _Build:
    def collect(self) -> Iterator[GaugeMetricFamily]:
        told = GaugeMetricFamily("trestle_build_info", "1, and which version this is.", labels=["version"])
        told.add_metric([__version__], 1)
        yield told


def registry() -> CollectorRegistry:
    """With what every process tells of itself."""
    made = CollectorRegistry()
    ProcessCollector(registry=made)
    made.register(_Build())
    return made


def serve(name: str, address: str, metrics: CollectorRegistry) -> str:
    """Serves `/metrics` from now on. name: of the setting that says the address. Returns the address as it turned out.
    Raises `ConfigError`."""
    host, _, port = address.rpartition(":")
    try:
        server: Any = start_http_server(int(port), host.strip("[]"), metrics)[0]
    except OSError as error:
        raise cannot_listen(name, address, error) from None
    accept = server.get_request

    def patient() -> Any:
        try:
            return accept()
        except OSError:
            time.sleep(_PAUSE)  # who waits to be accepted would be looked at without end, and take the process's time
            raise

    server.get_request = patient
    return f"{host}:{server.server_port}"

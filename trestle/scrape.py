"""Where Prometheus finds a service's metrics: a listener of their own, in a thread of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import GaugeMetricFamily

from trestle import __version__
from trestle.config import ConfigError

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Buckets of times: from an answer out of memory to the longest request."""


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
        raise ConfigError(f"{name}: cannot listen on {address}: {error.strerror}") from None
    return f"{host}:{server.server_port}"

"""OpenTelemetry traces of a service: spans, their W3C context in and out, and their way to a collector (OTLP over
HTTP).

What it needs is imported where traces are configured, and only there.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Meta

from trestle.config import ConfigError, unset

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanKind

HEADERS: Final = ("traceparent", "tracestate")
"""What carries a trace's context, in HTTP as in gRPC (W3C Trace Context)."""
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})(?:-.*)?"
)
Attributes: TypeAlias = Mapping[str, str | int | float | bool | list[str]]
_EXPORT_SECONDS: Final = 3.0
_CLOSE_SECONDS: Final = 4.0


class TraceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """endpoint: where spans go by OTLP over HTTP, `http://COLLECTOR:4318/v1/traces`. sample: which share of the traces
    that begin here is recorded; one that began elsewhere says so itself. service: what we are called in them.
    headers_env: headers for the collector, each with the environment variable that holds its value."""

    endpoint: Annotated[str, Meta(pattern="^https?://")]
    sample: Annotated[float, Meta(ge=0, le=1)] = 1.0
    service: str = ""
    headers_env: dict[str, str] = {}


def check(where: str, settings: TraceSettings, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The headers for the collector. where: the path of the settings. Raises `ConfigError`."""
    for needed in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        try:
            found = importlib.util.find_spec(needed)
        except ModuleNotFoundError:
            found = None
        if found is None:
            raise ConfigError(f"{where}: needs OpenTelemetry: pip install 'trestle[traces]'")
    headers = {}
    for header, variable in settings.headers_env.items():
        if not environment.get(variable):
            raise ConfigError(f"{where}.headers_env.{header}: {unset(variable)}")
        headers[header] = environment[variable]
    return headers


class Tracer:
    """Makes spans. They are sent from a thread, some at a time; a collector that is slow or away costs spans, and
    nothing else. Raises `ConfigError`."""

    def __init__(self, where: str, service: str, settings: TraceSettings) -> None:
        headers = check(where, settings)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio  # noqa: PLC0415
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        from trestle import __version__  # noqa: PLC0415

        # While the collector is away every span that finds no room would be a warning, made on the way of a request;
        # the exporter says once for a batch that it could not be sent.
        logging.getLogger("opentelemetry.sdk._shared_internal").setLevel(logging.ERROR)
        resource = Resource.create({"service.name": settings.service or service, "service.version": __version__})
        self._provider = TracerProvider(
            resource=resource, sampler=ParentBasedTraceIdRatio(settings.sample), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(settings.endpoint, headers=headers, timeout=_EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        self._tracer = self._provider.get_tracer("trestle", __version__)
        self._wire = TraceContextTextMapPropagator()
        self._in_context = set_span_in_context

    def received(self, name: str, kind: SpanKind, carrier: Mapping[str, str], attributes: Attributes) -> Span:
        """A span of what was asked from elsewhere. carrier: the headers that it came with, names in lower case."""
        context = self._wire.extract(carrier)
        return self._tracer.start_span(name, context, kind, dict(attributes))

    def child(self, name: str, kind: SpanKind, parent: Span, attributes: Attributes) -> Span:
        """A span of what is done for another one."""
        return self._tracer.start_span(name, self._in_context(parent), kind, dict(attributes))

    def carried(self, span: Span) -> dict[str, str]:
        """Headers that carry the span to who is asked."""
        carrier: dict[str, Any] = {}
        self._wire.inject(carrier, self._in_context(span))
        return carrier

    def close(self) -> None:
        """Sends what is left, within a moment."""
        # In a thread that nobody need wait for: a collector may take its time.
        last = threading.Thread(target=self._provider.shutdown, daemon=True)
        last.start()
        last.join(_CLOSE_SECONDS)


def unrecorded(traceparent: str) -> bool:
    """Whether its sender says that nothing of the trace is recorded. Who has no span hands it on as it came: that saves
    what a span costs that goes nowhere."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match is not None and not int(match["flags"], 16) & 1


def failed(span: Span, why: str) -> None:
    """Marks a span. why: of few different values, as `error.type` wants it."""
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 (who has a span has it)

    span.set_attribute("error.type", why)
    span.set_status(Status(StatusCode.ERROR))

"""The gateway's spans: one for each request, and one below it for each target that is asked.

Names and attributes are OpenTelemetry's (HTTP, RPC and `gen_ai` conventions), where it has any; nothing of what was
asked or answered is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.trace import SpanKind

from gateway.calls import Metadata
from gateway.record import Outcome, Record
from gateway.settings import Target
from trestle.traces import HEADERS, Tracer, failed

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from gateway.attempt import Attempt

_NS: Final = 1_000_000_000
_SERVICE: Final = "trestle.v1.WorkerService"


class Tracing:
    """An `Observer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def began(self, record: Record) -> None:
        """Its span begins, in the trace that it came with."""
        exchange = record.exchange
        http = exchange.http
        given = {name: http.headers[name] for name in HEADERS if name in http.headers}
        attributes = {
            "http.request.method": http.method,
            "url.path": http.path,
            "gen_ai.operation.name": record.kind,
            "trestle.request_id": exchange.id,
            "trestle.account": exchange.identity.account,
        }
        span = self._tracer.received(f"{http.method} {http.path}", SpanKind.SERVER, given, attributes)
        exchange.trace = Trace(self._tracer, span)

    def ended(self, record: Record) -> None:
        """Its span ends, with all that is known."""
        trace = record.exchange.trace
        if trace is None:
            return
        record.exchange.trace = None
        span = trace.span
        if not span.is_recording():
            span.end()
            return
        outcome = record.outcome
        span.set_attribute("trestle.outcome", outcome.value)
        if record.status:
            span.set_attribute("http.response.status_code", record.status)
        if record.model:
            span.set_attribute("gen_ai.request.model", record.model[:256])
            span.set_attribute("gen_ai.request.stream", record.stream)
        if record.target is not None:
            span.set_attribute("gen_ai.response.model", record.target.target.model)
        if record.finish:
            span.set_attribute("gen_ai.response.finish_reasons", [record.finish])
        total = record.total()
        if total is not None:
            span.set_attribute("gen_ai.usage.input_tokens", total.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", total.output_tokens)
        if record.first:
            since = int((record.first - record.began) * _NS)
            span.add_event("gen_ai.first_token", timestamp=int(record.at * _NS) + since)
        if outcome is Outcome.FAILED and record.error is not None:
            failed(span, record.error.reason.value)
        elif outcome is Outcome.REFUSED and record.error is not None:
            span.set_attribute("error.type", record.error.reason.value)
        span.end()


class Trace:
    """One request's."""

    __slots__ = ("_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.span = span
        self._tracer = tracer

    def attempt(self, target: Target, method: str) -> tuple[AttemptSpan, Metadata]:
        """A target is asked; what carries the span to its worker. method: of the worker's service."""
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": f"{_SERVICE}/{method}",
            "gen_ai.request.model": target.model,
            "trestle.worker": target.worker,
            "trestle.upstream": target.upstream,
        }
        span = self._tracer.child(f"{_SERVICE}/{method}", SpanKind.CLIENT, self.span, attributes)
        return AttemptSpan(span), tuple(self._tracer.carried(span).items())


class AttemptSpan:
    """One attempt's."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, attempt: Attempt) -> None:
        """The attempt is over."""
        if attempt.tries > 1:
            self._span.set_attribute("trestle.tries", attempt.tries)
        if attempt.lost:
            self._span.set_attribute("trestle.lost", True)
        elif attempt.error is not None:
            failed(self._span, attempt.error.reason.value)
        self._span.end()

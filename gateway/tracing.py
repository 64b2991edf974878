"""The gateway's spans: one for each request, and one below it for each target that is asked.

Names and attributes are OpenTelemetry's (HTTP, RPC and `gen_ai` conventions), where it has any; nothing of what was
asked or answered is in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc
from opentelemetry.trace import SpanKind

from gateway.record import Outcome, Record
from gateway.rpc.call import Metadata
from gateway.settings import Target
from trestle.traces import HEADERS, Tracer, failed, unrecorded

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from gateway.attempt import Attempt

_NS: Final = 1_000_000_000
_STATUSES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_SERVICE: Final = "trestle.v1.WorkerService"


class Tracing:
    """An `Observer`."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def began(self, record: Record) -> None:
        """Its span begins, in the trace that it came with, if that is recorded."""
        exchange = record.exchange
        http = exchange.http
        if unrecorded(http.headers.get("traceparent", "")):
            return
        given = {name: value for name in HEADERS if (value := exchange.trace_header(name))}
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
        if record.answer is not None and record.answer.model:
            span.set_attribute("gen_ai.response.model", record.answer.model[:256])
        if record.finish:
            span.set_attribute("gen_ai.response.finish_reasons", [record.finish])
        total = record.total()
        if total is not None:
            span.set_attribute("gen_ai.usage.input_tokens", total.input_tokens)
            span.set_attribute("gen_ai.usage.output_tokens", total.output_tokens)
        if record.first:
            since = int((record.first - record.began) * _NS)
            span.add_event("gen_ai.first_token", timestamp=int(record.at * _NS) + since)
        if record.error is not None and outcome in (Outcome.FAILED, Outcome.REFUSED):
            # What its client did wrong is no failure of a server; a stream that fails has begun with 200.
            if record.status >= 500 or record.status == 200:
                failed(span, record.error.label)
            else:
                span.set_attribute("error.type", record.error.label)
        span.end()


class Trace:
    """One request's."""

    __slots__ = ("_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self.span = span
        self._tracer = tracer

    def attempt(self, target: Target, method: str) -> tuple[AttemptSpan | None, Metadata]:
        """A target is asked: its span, None where the trace is not recorded, and what carries that to its worker.
        method: of the worker's service."""
        if not self.span.is_recording():
            return None, tuple(self._tracer.carried(self.span).items())
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
        """The attempt is over, and what of its call still runs is about to be cancelled."""
        if attempt.error is not None:
            status = _STATUSES.get(attempt.error.status, "UNKNOWN")
        else:
            status = "OK" if attempt.call.done else "CANCELLED"
        self._span.set_attribute("rpc.response.status_code", status)
        if attempt.tries > 1:
            self._span.set_attribute("trestle.tries", attempt.tries)
        if attempt.lost:
            self._span.set_attribute("trestle.lost", True)
        elif attempt.error is not None:
            failed(self._span, attempt.error.label)
        self._span.end()

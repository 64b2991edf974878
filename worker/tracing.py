"""The worker's spans: one for each call, and one below it for each time that an upstream is asked for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from trestle.errors import CallError
from trestle.traces import Tracer, failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from worker.calls import CallMetadata

_SERVICE: Final = "trestle.v1.WorkerService"
_OPERATIONS: Final = {"Chat": "chat", "Complete": "text_completion", "Embed": "embeddings", "Moderate": "moderation"}
_PROVIDERS: Final = {"gemini": "gcp.gemini"}
"""As OpenTelemetry calls a family's vendor, where that is not the family's own name."""


class Tracing:
    """Of one worker."""

    def __init__(self, tracer: Tracer, family: str) -> None:
        self._tracer = tracer
        self._provider = _PROVIDERS.get(family, family)

    def began(self, call: CallMetadata) -> None:
        """A call's span begins, in the trace that it came with; there is none of who looks what models there are."""
        if call.method not in _OPERATIONS:
            return
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": f"{_SERVICE}/{call.method}",
            "trestle.request_id": call.request_id,
            "trestle.account": call.account,
        }
        span = self._tracer.received(f"{_SERVICE}/{call.method}", SpanKind.SERVER, call.context, attributes)
        call.trace = CallTrace(self._tracer, span, self._provider)

    def ended(self, call: CallMetadata) -> None:
        """It ends, as the call did."""
        if call.trace is not None:
            span = call.trace.span
            span.set_attribute("rpc.response.status_code", call.status)
            if call.status not in ("OK", "CANCELLED"):
                failed(span, call.status)
            span.end()


class CallTrace:
    """One call's."""

    __slots__ = ("_provider", "_tracer", "span")

    def __init__(self, tracer: Tracer, span: Span, provider: str) -> None:
        self.span = span
        self._tracer = tracer
        self._provider = provider

    def upstream(self, call: CallMetadata, url: str) -> UpstreamSpan:
        """An upstream is asked."""
        operation = _OPERATIONS[call.method]
        model = getattr(call.request, "model", "")
        parts = urlsplit(url)
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": model,
            "server.address": parts.hostname or "",
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
            "trestle.upstream": call.upstream,
        }
        span = self._tracer.child(f"{operation} {model}", SpanKind.CLIENT, self.span, attributes)
        return UpstreamSpan(call, span, self._tracer.carried(span))


class UpstreamSpan:
    """One request to an upstream. headers: carry it there."""

    __slots__ = ("_call", "_span", "headers")

    def __init__(self, call: CallMetadata, span: Span, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._call = call
        self._span = span

    def answered(self, status: int) -> None:
        """By the head of an answer."""
        self._span.set_attribute("http.response.status_code", status)

    def end(self) -> None:
        """It is over; how, says the exception that is on its way, if there is one."""
        usage, error = self._call.usage, sys.exc_info()[1]
        if usage is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", usage.input_tokens)
            self._span.set_attribute("gen_ai.usage.output_tokens", usage.output_tokens)
        if isinstance(error, CallError):
            failed(self._span, error.reason.value)
        elif error is not None:
            self._span.set_attribute("error.type", type(error).__name__)
        self._span.end()

"""The worker's spans: one for each call, and one below it for each time that an upstream is asked for it."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from trestle.errors import CallError
from trestle.traces import Tracer, failed, unrecorded
from trestle.v1 import chat_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span

    from worker.calls import CallMetadata

_SERVICE: Final = "trestle.v1.WorkerService"
_OPERATIONS: Final = {"Chat": "chat", "Complete": "text_completion", "Embed": "embeddings", "Moderate": "moderation"}
_PROVIDERS: Final = {"gemini": "gcp.gemini"}
"""As OpenTelemetry calls a family's vendor, where that is not the family's own name."""
_OUR_FAULT: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)
"""What a server's span takes for a failure, as the conventions have it: the others are its caller's."""


class Tracing:
    """Of one worker."""

    def __init__(self, tracer: Tracer, family: str) -> None:
        self._tracer = tracer
        self._provider = _PROVIDERS.get(family, family)

    def began(self, call: CallMetadata) -> None:
        """A call's span begins, in the trace that it came with, if that is recorded; there is none of who looks what
        models there are."""
        if call.method not in _OPERATIONS or unrecorded(call.context.get("traceparent", "")):
            return
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.method": f"{_SERVICE}/{call.method}",
            "gen_ai.operation.name": _OPERATIONS[call.method],
            "gen_ai.request.model": call.request.model,
            "trestle.request_id": call.request_id,
            "trestle.account": call.account,
        }
        span = self._tracer.received(f"{_SERVICE}/{call.method}", SpanKind.SERVER, call.context, attributes)
        call.trace = CallTrace(self._tracer, span, self._provider)

    def ended(self, call: CallMetadata) -> None:
        """It ends, as the call did."""
        if call.trace is None:
            return
        for each in call.trace.cut:
            each.end_cut()
        span = call.trace.span
        span.set_attribute("rpc.response.status_code", call.status)
        _tell_usage(span, call)
        if span.is_recording() and (reasons := _finishes(call.last)):
            span.set_attribute("gen_ai.response.finish_reasons", reasons)
        if call.status in _OUR_FAULT:
            failed(span, call.reason or call.status)
        elif call.reason:
            span.set_attribute("error.type", call.reason)
        span.end()


def _tell_usage(span: Span, call: CallMetadata) -> None:
    if call.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", call.usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", call.usage.output_tokens)


def _finishes(last: Any) -> list[str]:
    """Why the choices ended, from the response that a call ended with."""
    names = [
        chat_pb2.FinishReason.Name(chunk.finish.reason)
        for chunk in getattr(last, "chunks", ())
        if chunk.HasField("finish")
    ]
    return [name.removeprefix("FINISH_REASON_").lower() for name in names]


class CallTrace:
    """One call's. cut: requests to upstreams that were cancelled; why is known at the call's end."""

    __slots__ = ("_provider", "_tracer", "cut", "span")

    def __init__(self, tracer: Tracer, span: Span, provider: str) -> None:
        self.span = span
        self.cut: list[UpstreamSpan] = []
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
        error = sys.exc_info()[1]
        if isinstance(error, asyncio.CancelledError) and self._call.trace is not None:
            self._call.trace.cut.append(self)  # by a limit in time, or because the caller left
            return
        _tell_usage(self._span, self._call)
        if isinstance(error, CallError):
            failed(self._span, error.reason.value)
        elif error is not None:
            failed(self._span, "INTERNAL")
        self._span.end()

    def end_cut(self) -> None:
        """It was cancelled, and its call has ended."""
        _tell_usage(self._span, self._call)
        if self._call.reason:
            failed(self._span, self._call.reason)
        else:
            self._span.set_attribute("error.type", "CANCELLED")
        self._span.end()

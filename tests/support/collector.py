"""A collector of OpenTelemetry traces: takes them by OTLP over HTTP, as any collector does."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from support.upstream import PATIENCE


@dataclass
class Span:
    """service: whose it is. error: its status says so."""

    service: str
    name: str
    kind: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    events: list[str]
    error: bool
    start: int
    end: int


@dataclass
class Collector:
    """url: where it takes them. headers: of the last request to it. silent: it takes what comes and never answers.
    asked: something came."""

    url: str = ""
    silent: bool = False
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    spans: list[Span] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: Any = None

    async def __aenter__(self) -> Collector:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1/traces"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._over.set()
        await self._runner.cleanup()

    async def until(self, names: Iterable[tuple[str, str]]) -> list[Span]:
        """Waits for as many spans as there are of these services and names; returns all there are."""
        wanted = sorted(names)
        async with asyncio.timeout(PATIENCE):
            while sorted((span.service, span.name) for span in self.spans) != wanted:
                self._news.clear()
                await self._news.wait()
        return self.spans

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.asked.set()
        if self.silent:
            await self._over.wait()
        if request.headers.get("content-encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: _value(each.value) for each in resource.resource.attributes}
            service = about["service.name"]
            for scope in resource.scope_spans:
                self.spans += [_span(service, each) for each in scope.spans]
        self._news.set()
        return web.Response(content_type="application/x-protobuf")


def _span(service: str, span: Any) -> Span:
    return Span(
        service,
        span.name,
        span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        {each.key: _value(each.value) for each in span.attributes},
        [each.name for each in span.events],
        span.status.code == span.status.STATUS_CODE_ERROR,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


def _value(value: Any) -> Any:
    arm = value.WhichOneof("value")
    found = getattr(value, arm)
    return [_value(each) for each in found.values] if arm == "array_value" else found

"""An SSE answer on its way to the client: headers when the first bytes are due, comments while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

from aiohttp import web

from gateway.exchange import Exchange
from gateway.openai.stream import KEEP_ALIVE

_NEVER: Final = float("inf")


class _EventStream(web.StreamResponse):
    """Its headers leave together with its first events, in one packet."""

    _send_headers_immediately = False


class SseAnswer:
    """One streamed answer. keep_alive: seconds of silence before a comment is sent. extra_headers: asked for once, when
    the headers are about to leave.

    begun: the headers are out, by content or by a comment; from then on a failure can only be an event. sent: content
    is out too. Every send is awaited until the client's connection has room for it. `close` it on every way out.
    """

    __slots__ = (
        "_exchange",
        "_extra_headers",
        "_keep_alive",
        "_last",
        "_loop",
        "_response",
        "_timer",
        "_waiting",
        "sent",
    )

    def __init__(
        self, exchange: Exchange, keep_alive: float, extra_headers: Callable[[], Awaitable[dict[str, str]]]
    ) -> None:
        self.sent = False
        self._exchange = exchange
        self._extra_headers = extra_headers
        self._keep_alive = keep_alive
        self._response: web.StreamResponse | None = None
        self._waiting: asyncio.Task[None] | None = None  # a comment on its way out
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(keep_alive, self._tick)

    @property
    def begun(self) -> bool:
        return self._response is not None

    async def send(self, events: bytes) -> None:
        """Writes whole events."""
        response = await self._ready()
        await response.write(events)
        self._last = self._loop.time()

    async def end(self, events: bytes) -> web.StreamResponse:
        """Writes the last events and, with them, the end of the answer."""
        response = await self._ready()
        await response.write_eof(events)
        return response

    async def _ready(self) -> web.StreamResponse:
        """The answer, its headers out and nothing else on its way."""
        self._last = _NEVER  # while a write waits for the client, no comment is due
        if self._waiting is not None:
            await self._waiting
        response = self._response
        if response is None:
            response = await self._begin(await self._extra_headers())
        if not self.sent:
            self.sent = True
            if self._exchange.record is not None:
                self._exchange.record.first = perf_counter()
        return response

    async def settled(self) -> bool:
        """`begun`, once a comment that is on its way out is out."""
        if self._waiting is not None:
            await self._waiting
        return self.begun

    def close(self) -> None:
        """No comment after this."""
        self._timer.cancel()
        if self._waiting is not None:
            self._waiting.cancel()

    async def _begin(self, extra: dict[str, str]) -> web.StreamResponse:
        headers = self._exchange.headers()
        headers["content-type"] = "text/event-stream; charset=utf-8"
        headers["cache-control"] = "no-cache"
        headers["x-accel-buffering"] = "no"
        headers.update(extra)
        response = _EventStream(headers=headers)
        if self._exchange.record is not None:
            self._exchange.record.status = response.status
        self._response = response
        await response.prepare(self._exchange.http)
        return response

    def _tick(self) -> None:
        """Looks after a silence; one that began with a write that waited is noticed late by at most its own time."""
        now = self._loop.time()
        due = now if self._last == _NEVER else self._last
        if now - due >= self._keep_alive and self._waiting is None:
            self._waiting = self._loop.create_task(self._comment())
            self._last = due = now
        self._timer = self._loop.call_at(due + self._keep_alive, self._tick)

    async def _comment(self) -> None:
        try:
            response = self._response if self._response is not None else await self._begin({})
            await response.write(KEEP_ALIVE)
        except ConnectionError:
            pass  # the handler learns of it by its own cancellation
        finally:
            self._waiting = None

"""An SSE answer on its way to the client: headers when the first bytes are due, comments while it is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from typing import Final

from gateway.exchange import Exchange
from gateway.openai.stream import KEEP_ALIVE
from gateway.reply import StreamReply

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}
_NOTHING: Final[Mapping[str, str]] = {}


class SseAnswer:
    """One streamed answer. keep_alive: seconds of silence before a comment is sent. extra_headers: asked for once, when
    the headers are about to leave.

    begun: the headers are out, by content or by a comment; from then on a failure can only be an event. sent: content
    is out too. Every send is awaited until the client's connection has room for it. `close` it on every way out.
    """

    __slots__ = ("_exchange", "_extra_headers", "_first", "_keep_alive", "_last", "_loop", "_reply", "_timer", "sent")

    def __init__(
        self, exchange: Exchange, keep_alive: float, extra_headers: Callable[[], Awaitable[Mapping[str, str]]]
    ) -> None:
        self.sent = False
        self._exchange = exchange
        self._extra_headers = extra_headers
        self._keep_alive = keep_alive
        self._reply: StreamReply | None = None
        self._first = b""
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(keep_alive, self._tick)

    @property
    def begun(self) -> bool:
        return self._reply is not None

    def put(self, events: bytes) -> bool:
        """Sends whole events. Returns whether more may follow at once; if not await `go_on` first, with which these
        leave if they are the first content. Raises `ConnectionError`."""
        reply = self._reply
        if reply is None or not self.sent:
            self._first = events
            return False
        reply.write(events)
        self._last = self._loop.time()
        return not reply.blocked

    async def send(self, events: bytes) -> None:
        """Sends whole events; returns once there is room for more. Raises `ConnectionError`."""
        if not self.put(events):
            await self.go_on()

    async def go_on(self) -> None:
        """Returns once there is room for more. Raises `ConnectionError`."""
        if self._first:
            reply = await self._speak()
            reply.write(self._first)
            self._first = b""
            self._last = self._loop.time()
        if self._reply is not None and self._reply.blocked:
            await self._reply.room()
            self._last = self._loop.time()

    async def end(self, events: bytes) -> StreamReply:
        """Writes the last events and, with them, the end of the answer. Raises `ConnectionError`."""
        reply = self._reply
        if reply is None or not self.sent:
            reply = await self._speak()
        self.close()
        reply.end(events)
        await reply.room()
        return reply

    def close(self) -> None:
        """No comment after this."""
        self._timer.cancel()

    async def _speak(self) -> StreamReply:
        """The answer, now that content is due."""
        extra = await self._extra_headers() if self._reply is None else _NOTHING
        reply = self._begin(extra) if self._reply is None else self._reply  # a comment may have been quicker
        self.sent = True
        if self._exchange.record is not None:
            self._exchange.record.first = perf_counter()
        return reply

    def _begin(self, extra: Mapping[str, str]) -> StreamReply:
        exchange = self._exchange
        reply = self._reply = StreamReply(exchange.http, {**exchange.headers(), **_HEADERS, **extra})
        if exchange.record is not None:
            exchange.record.status = reply.status
        return reply

    def _tick(self) -> None:
        """Looks after a silence. A client that has yet to read what it was sent needs no comment."""
        now = self._loop.time()
        if now - self._last >= self._keep_alive:
            self._last = now
            reply = self._begin(_NOTHING) if self._reply is None else self._reply
            if not reply.blocked:
                try:
                    reply.write(KEEP_ALIVE)
                except ConnectionError:
                    return  # the handler learns of it by its own cancellation
        self._timer = self._loop.call_at(self._last + self._keep_alive, self._tick)

"""The body of an answer on its way through a decoder.

One read of it becomes one response, several if it is large: what arrived together travels together, and nothing waits
for a timer, nor for a turn of the event loop. For each response there is room before it is made, so a slow caller makes
the upstream wait, never this process grow.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from trestle.errors import CallError, Reason
from worker.family import Decoder
from worker.limits import Limits
from worker.out import Out
from worker.sse import SseParser
from worker.upstream import UpstreamAnswer

# A larger read becomes several responses: each stands in memory several times on its way to a client that is slow.
_BATCH_BYTES: Final = 32 * 1024
# Fewer are hardly worth a look for events that are like each other.
_RUN_BYTES: Final = 1024
# So many events are another kind first: the first of an answer.
_OTHERS: Final = 4


def refuse_page(answer: UpstreamAnswer) -> None:
    """Raises `CallError` (UPSTREAM_PROTOCOL) for a web page: a proxy's, or a base_url that leads astray."""
    if "text/html" in answer.headers.get("content-type", "").lower():
        raise CallError(Reason.UPSTREAM_PROTOCOL, "The upstream answered with a web page.")


def unframed(body: bytes) -> bytes:
    """An error's body; what an event of it says, where an endpoint for streams has made one of it."""
    if not body.lstrip().startswith((b"data:", b"event:")):
        return body
    events = SseParser(sys.maxsize).feed(body.lstrip() + b"\n\n")
    return events[0][1] if events else body


def _is_events(answer: UpstreamAnswer) -> bool:
    return "text/event-stream" in answer.headers.get("content-type", "").lower()


async def first_bytes(answer: UpstreamAnswer) -> bytes:
    """The first bytes of the body but blanks and a byte order mark; `b""` where there are none. By them it is JSON or
    events, whatever its content-type and whatever was asked for."""
    while data := await answer.read():
        data = data.removeprefix(b"\xef\xbb\xbf").lstrip()
        if data:
            return data
    return b""


def decode(data: bytes, sse: SseParser, decoder: Decoder[Any], chunks: Any) -> None:
    """Puts there what one more piece of the body says. Raises `CallError` as `Decoder.feed`, after what came before the
    fault."""
    for others in (0, _OTHERS):
        if len(data) < _RUN_BYTES:
            break
        at = sse.next_event(data, others)
        if at < 0:
            break
        if at:
            _feed(data[:at], sse, decoder, chunks)
            if decoder.done:
                return
        data = decoder.feed_run(data[at:], chunks)
    _feed(data, sse, decoder, chunks)


def _feed(data: bytes, sse: SseParser, decoder: Decoder[Any], chunks: Any) -> None:
    for event in sse.feed(data):
        decoder.feed(event, chunks)
        if decoder.done:
            break


@contextmanager
def bare_errors(sse: SseParser, decoder: Decoder[Any]) -> Iterator[None]:
    """An answer that is cut in here is one that failed, where the upstream has said so last, without a frame."""
    try:
        yield
    except CallError as error:
        said = sse.stray() if error.reason is Reason.UPSTREAM_TRUNCATED else b""
        failure = decoder.failure_in(said) if said else None
        if failure is None:
            raise
        raise failure from None


class Relay:
    """One body on its way. sse, decoder: what it is read with. out: where its chunks go. limit: hears of them. most:
    bytes that it may have. flush: seconds for which what comes after the first text may gather before it is read."""

    __slots__ = ("_answer", "_decoder", "_flush", "_left", "_limit", "_out", "_pieces", "_sse")

    def __init__(
        self,
        answer: UpstreamAnswer,
        sse: SseParser,
        decoder: Decoder[Any],
        out: Out[Any],
        limit: Limits,
        most: int,
        flush: float,
    ) -> None:
        self._answer = answer
        self._sse = sse
        self._decoder = decoder
        self._out = out
        self._limit = limit
        self._left = most
        self._flush = flush
        self._pieces: Iterator[bytes] = iter(())  # the rest of a large read

    async def run(self, data: bytes) -> bool:
        """Sends what the events say. data: the body's first bytes. Returns whether a terminal event ended it; more of
        the body may come then. Raises `CallError`."""
        answer = self._answer
        self.take(data)
        while not self._decoder.done:
            await self._out.room()
            if piece := next(self._pieces, b""):
                self._send(piece)
            elif not self._flush:
                if await answer.pass_to(self.take):
                    self._close()
                    return False
            else:
                if self._limit.began_at:
                    await asyncio.sleep(self._flush)
                if not (data := await answer.read()):
                    self._close()
                    return False
                self.take(data)
        return True

    def take(self, data: bytes) -> bool:
        """Sends what more of the body says; returns whether more may follow at once. Raises `CallError`."""
        self._left -= len(data)
        if self._left < 0:
            raise self._answer.too_large()
        if len(data) <= _BATCH_BYTES:
            return self._send(data)
        self._pieces = (data[at : at + _BATCH_BYTES] for at in range(_BATCH_BYTES, len(data), _BATCH_BYTES))
        self._send(data[:_BATCH_BYTES])
        return False

    def _send(self, data: bytes) -> bool:
        """As one response."""
        decoder = self._decoder
        response = self._out.new()
        chunks = response.chunks
        try:
            decode(data, self._sse, decoder, chunks)
        except CallError:
            # What was understood before a fault still goes out: text, and above all usage.
            if chunks:
                self._out.put(response)
            raise
        if chunks:
            self._limit.said(len(chunks))
        if decoder.done:
            self._out.finish(response)
            return False
        return not chunks or self._out.put(response)

    def _close(self) -> None:
        """At the body's end."""
        answer, decoder = self._answer, self._decoder
        rest = self._sse.rest() if answer.clean_end else None
        if rest is None and not self._limit.heard and answer.clean_end and not _is_events(answer):
            raise CallError(Reason.UPSTREAM_PROTOCOL, "The upstream's answer is neither events nor JSON.")
        response = self._out.new()
        if rest is not None:
            decoder.feed(rest, response.chunks)
        decoder.close(answer.clean_end, response.chunks)
        self._out.finish(response)

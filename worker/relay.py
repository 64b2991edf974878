"""The body of an answer on its way through a decoder.

One read of it becomes one response, several if it is large: what arrived together travels together, and nothing waits
for a timer. Each response is awaited before the next, so a slow caller makes the upstream wait, never this process
grow.
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


async def relay(
    answer: UpstreamAnswer,
    data: bytes,
    sse: SseParser,
    decoder: Decoder[Any],
    out: Out[Any],
    limit: Limits,
    most: int,
    flush: float,
) -> bool:
    """Sends what the body's events say, up to `most` bytes of it. data: its first bytes. flush: seconds for which what
    comes after the first text may gather before it is read. Returns whether a terminal event ended it; more of the body
    may come then."""
    while data:
        most -= len(data)
        if most < 0:
            raise answer.too_large()
        for piece in (data,) if len(data) <= _BATCH_BYTES else _pieces(data):
            response = out.new()
            chunks = response.chunks
            try:
                decode(piece, sse, decoder, chunks)
            except CallError:
                # What was understood before a fault still goes out: text, and above all usage.
                if chunks:
                    await out.send(response)
                raise
            if chunks:
                limit.said(len(chunks))
            if decoder.done:
                out.finish(response)
                return True
            if chunks:
                await out.send(response)
        if flush and limit.began_at:
            await asyncio.sleep(flush)
        data = await answer.read()
    rest = sse.rest() if answer.clean_end else None
    if rest is None and not limit.heard and answer.clean_end and not _is_events(answer):
        raise CallError(Reason.UPSTREAM_PROTOCOL, "The upstream's answer is neither events nor JSON.")
    response = out.new()
    if rest is not None:
        decoder.feed(rest, response.chunks)
    decoder.close(answer.clean_end, response.chunks)
    out.finish(response)
    return False


def _pieces(data: bytes) -> Iterator[bytes]:
    return (data[at : at + _BATCH_BYTES] for at in range(0, len(data), _BATCH_BYTES))

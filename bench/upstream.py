"""`python -m bench.upstream`: a scripted upstream that costs little. Answers are ready bytes; see bench.answers."""

from __future__ import annotations

import asyncio
import re
from functools import cache
from typing import Final, cast

import uvloop

from bench.answers import script, stream_events, whole_answer

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream\r\n"
    b"cache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_LAST: Final = b"0\r\n\r\n"


def _framed(event: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(event), event)


@cache
def _whole(model: str) -> bytes:
    return _json(b"200 OK", whole_answer(model))


@cache
def _burst(model: str, chunks: int, size: int) -> bytes:
    """A whole stream in one write, each event an HTTP chunk of its own, as servers frame them."""
    return _STREAM_HEAD + b"".join(map(_framed, stream_events(model, chunks, size))) + _LAST


@cache
def _paced(model: str, chunks: int, size: int) -> tuple[bytes, ...]:
    """The writes of a paced stream: one text each, the head with the first, all that ends it with the last."""
    role, *texts, finish, usage, done = map(_framed, stream_events(model, chunks, size))
    texts[0] = _STREAM_HEAD + role + texts[0]
    texts[-1] += finish + usage + done + _LAST
    return tuple(texts)


def _json(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


class UpstreamProtocol(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        head_end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, head_end) if head_end >= 0 else None
        size = head_end + 4 + (int(length[1]) if length else 0)
        if head_end < 0 or len(data) < size:
            self._held = data
            return
        self._held = data[size:]
        self._answer(data[head_end + 4 : size])

    def _answer(self, body: bytes) -> None:
        try:
            model, chunks, interval_ms, size, stream = script(body)
        except ValueError as error:
            self._transport.write(_json(b"404 Not Found", b'{"error":{"message":"%b"}}' % str(error).encode()))
            return
        if not stream:
            self._transport.write(_whole(model))
        elif not interval_ms:
            self._transport.write(_burst(model, chunks, size))
        else:
            self._pace(_paced(model, chunks, size), 0, self._loop.time(), interval_ms / 1000)

    def _pace(self, writes: tuple[bytes, ...], number: int, start: float, interval: float) -> None:
        """Writes the one with this number and plans the next by the clock, so that no delay adds up."""
        self._transport.write(writes[number])
        number += 1
        if number < len(writes):
            self._timer = self._loop.call_at(start + number * interval, self._pace, writes, number, start, interval)


async def main() -> None:
    """Serves on a free port of loopback until it is ended."""
    server = await asyncio.get_running_loop().create_server(UpstreamProtocol, "127.0.0.1", 0, backlog=4096)
    print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())

"""A server of HTTP/2 that says what a test says, frame by frame or byte by byte, and tells what came. It reads with
codecs that are not ours."""

from __future__ import annotations

import asyncio
import random
import ssl
import struct
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final

from hpack import Decoder, Encoder
from support.upstream import PATIENCE

DATA, HEADERS, _, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 3, 4
OK_HEAD: Final = ((":status", "200"), ("content-type", "application/grpc"))
HEALTH: Final = "/grpc.health.v1.Health/Watch"
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_BYTES: Final = 16_384

Fields = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Frame:
    """One that came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def number(self) -> int:
        """What a RST_STREAM or WINDOW_UPDATE says."""
        return int.from_bytes(self.payload[:4], "big")


@dataclass(frozen=True)
class Request:
    """One call that began. fields: its headers."""

    stream: int
    fields: dict[str, str] = field(repr=False)

    @property
    def path(self) -> str:
        return self.fields[":path"]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """As it goes over the wire."""
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def message(data: bytes, compressed: int = 0) -> bytes:
    """A gRPC message in its frame."""
    return struct.pack(">BI", compressed, len(data)) + data


def settings(values: dict[int, int]) -> bytes:
    """Ours."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values.items()))


def rst_stream(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def goaway(last: int, code: int = 0) -> bytes:
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code))


def window_update(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", more))


class Peer:
    """One connection from a client. cut: where given, all that is sent goes in pieces of random sizes. came: every
    frame that was read. window: bytes that a stream may be sent now, by its number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: random.Random | None) -> None:
        self.came: list[Frame] = []
        self.window: dict[int, int] = {}
        self._reader = reader
        self._writer = writer
        self._cut = cut
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._pings = 0

    # What goes.

    async def send(self, *data: bytes) -> None:
        whole = b"".join(data)
        if self._cut is None:
            self._writer.write(whole)
        while self._cut is not None and whole:
            size = min(self._cut.choice((1, 2, 7, 9, 100, 5_000, 40_000)), len(whole))
            self._writer.write(whole[:size])
            whole = whole[size:]
            await asyncio.sleep(0)  # so that the client reads it alone
        await self._writer.drain()

    def headers(self, stream: int, fields: Fields = OK_HEAD, end: bool = False) -> bytes:
        """A header block, Huffman coded and with the table's help."""
        block = self._encoder.encode(list(fields))
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)

    def status(self, stream: int, code: object = 0, *more: tuple[str, str]) -> bytes:
        """The end of a call."""
        return self.headers(stream, (("grpc-status", str(code)), *more), end=True)

    async def data(self, stream: int, data: bytes, rng: random.Random | None = None) -> None:
        """DATA in frames as large as the client takes them. rng: makes them of random sizes, padded at random."""
        at = 0
        while at < len(data):
            room = self.window.setdefault(stream, 65_536)
            if room < 300:
                await self._update(stream)
                continue
            size = min(len(data) - at, room, _FRAME_BYTES)
            padding = b""
            if rng is not None:
                size = rng.randint(0, min(size, rng.choice((20, 3_000, _FRAME_BYTES))))
                padding = bytes(rng.choice((0, 0, 255)))
            size = min(size, room - 256, _FRAME_BYTES - 256)
            payload = bytes((len(padding),)) + data[at : at + size] + padding
            at += size
            self.window[stream] -= len(payload)
            await self.send(frame(DATA, PADDED, stream, payload))

    async def _update(self, stream: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while (came := await self.read()).kind != WINDOW_UPDATE or came.stream != stream:
                pass
        self.window[stream] += came.number

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Without a goodbye."""
        self._writer.transport.abort()

    # What comes.

    async def open(self, values: dict[int, int] | None = None) -> None:
        """Both sides say how they speak."""
        await self.send(settings(values or {}))
        await self.greeted()

    async def greeted(self) -> None:
        """Returns once the client has said how it speaks."""
        assert await self._reader.readexactly(len(_PREFACE)) == _PREFACE
        await self.frame(SETTINGS)

    async def read(self) -> Frame:
        """The next frame. Raises IncompleteReadError at the end."""
        head = await self._reader.readexactly(9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        came = Frame(kind, flags, stream, await self._reader.readexactly(int.from_bytes(head[:3], "big")))
        self.came.append(came)
        return came

    async def frame(self, *kinds: int) -> Frame:
        """The next one of such a kind."""
        async with asyncio.timeout(PATIENCE):
            while (came := await self.read()).kind not in kinds:
                pass
        return came

    async def request(self) -> Request:
        """The next call."""
        came = await self.frame(HEADERS)
        return Request(came.stream, {str(name): str(value) for name, value in self._decoder.decode(came.payload)})

    async def healthy(self, answer: bytes = SERVING) -> int:
        """Answers the question for health, which comes first; returns its stream."""
        asked = await self.request()
        assert asked.path == HEALTH
        await self.send(self.headers(asked.stream), frame(DATA, 0, asked.stream, message(answer)))
        return asked.stream

    async def body(self, stream: int) -> bytes:
        """All DATA of a stream until its end."""
        whole = b""
        while True:
            came = await self.frame(DATA)
            if came.stream == stream:
                whole += came.payload
                if came.flags & END_STREAM:
                    return whole

    async def settle(self) -> list[Frame]:
        """Returns what has come until the client has taken all that was sent."""
        self._pings += 1
        payload = self._pings.to_bytes(8, "big")
        at = len(self.came)
        await self.send(frame(PING, 0, 0, payload))
        while (came := await self.frame(PING)).payload != payload:
            assert came.payload != payload
        return self.came[at:]

    async def ended(self) -> None:
        """Returns once the client has closed the connection."""
        async with asyncio.timeout(PATIENCE):
            try:
                while True:
                    await self.read()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass


class Http2Server:
    """Use as an async context manager. address: where it listens. count: the connections that have come."""

    def __init__(
        self,
        *,
        cut: random.Random | None = None,
        context: ssl.SSLContext | None = None,
        path: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.address = ""
        self.port = port
        self.count = 0
        self._cut = cut
        self._context = context
        self._path = path
        self._host = host
        self._came: asyncio.Queue[Peer] = asyncio.Queue()
        self._peers: list[Peer] = []
        self._server: asyncio.Server

    async def __aenter__(self) -> Http2Server:
        if self._path is None:
            self._server = await asyncio.start_server(self._serve, self._host, self.port, ssl=self._context)
            self.port = self._server.sockets[0].getsockname()[1]
            self.address = f"{self._host}:{self.port}"
        else:
            self._server = await asyncio.start_unix_server(self._serve, self._path, ssl=self._context)
            self.address = f"unix:{self._path}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for peer in self._peers:
            peer.reset()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        peer = Peer(reader, writer, self._cut)
        self._peers.append(peer)
        self._came.put_nowait(peer)

    async def accept(self, values: dict[int, int] | None = None) -> Peer:
        """The next connection, on which both sides have said how they speak."""
        peer = await self.bare()
        await peer.open(values)
        return peer

    async def bare(self) -> Peer:
        """The next connection, on which nothing has been said."""
        async with asyncio.timeout(PATIENCE):
            return await self._came.get()

    async def serving(self, values: dict[int, int] | None = None) -> Peer:
        """The next connection, whose other side knows that we serve."""
        peer = await self.accept(values)
        await peer.healthy()
        return peer

"""A client of HTTP/2 that sends what it is told to, byte for byte, and says what came back."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import hpack
from support.upstream import PATIENCE

from trestle.http2 import frames
from trestle.http2.frames import frame
from trestle.http2.messages import prefix_of

_LONGEST_PIECE: Final = 40
WHOLE: Final = frames.END_STREAM


def framed(message: bytes) -> bytes:
    """A gRPC message in its frame."""
    return prefix_of(message) + message


class Frame(NamedTuple):
    """As it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """Why, of RST_STREAM and GOAWAY."""
        at = 0 if self.kind == frames.RST_STREAM else 4
        return int.from_bytes(self.payload[at : at + 4], "big")


@dataclass
class Answer:
    """What came on a stream. fields, trailers: its header blocks; one that is alone counts as trailers. sizes: of its
    DATA frames. reset: the code that ended it; -1 for none."""

    fields: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    sizes: list[int] = field(default_factory=list)
    trailers: dict[str, str] = field(default_factory=dict)
    reset: int = -1

    @property
    def status(self) -> tuple[int, str]:
        """The call's, and its words."""
        return int(self.trailers["grpc-status"]), self.trailers.get("grpc-message", "")

    @property
    def messages(self) -> list[bytes]:
        """Those that came, none of which is cut or compressed."""
        found, at = [], 0
        while at < len(self.data):
            end = at + 5 + int.from_bytes(self.data[at + 1 : at + 5], "big")
            assert self.data[at] == 0
            assert end <= len(self.data)
            found.append(self.data[at + 5 : end])
            at = end
        return found


class Peer:
    """One connection. pieces: where what is sent is cut; None: nowhere. decoder: of header blocks."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pieces: random.Random | None
    ) -> None:
        self.writer = writer
        self._reader = reader
        self._pieces = pieces
        self._encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()

    async def send(self, *parts: bytes) -> None:
        """Sends these, one after the other."""
        data = b"".join(parts)
        while data:
            size = len(data) if self._pieces is None else self._pieces.randint(1, _LONGEST_PIECE)
            self.writer.write(data[:size])
            data = data[size:]
            await self.writer.drain()
            if data:
                await asyncio.sleep(0)

    def block(self, path: str, *more: tuple[str, str], without: Iterable[str] = (), **changed: str) -> bytes:
        """A call's headers, compressed as clients do. changed: pseudo headers that are others. more: after them."""
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "a"}
        fields.update({f":{name}": value for name, value in changed.items()})
        fields.update({"te": "trailers", "content-type": "application/grpc"})
        listed = [(name, value) for name, value in fields.items() if name not in without]
        return self._encoder.encode([*listed, *more])

    def headers(self, stream: int, path: str, *more: tuple[str, str], end: bool = False) -> bytes:
        """A call's beginning."""
        return frames.headers(stream, self.block(path, *more), end)

    def call(self, stream: int, path: str, request: bytes = b"", *more: tuple[str, str]) -> bytes:
        """A call that has one request, as a whole."""
        return self.headers(stream, path, *more) + data(stream, framed(request), WHOLE)

    async def frame(self) -> Frame:
        """The next one. Raises `asyncio.IncompleteReadError` after the last."""
        async with asyncio.timeout(PATIENCE):
            head = await self._reader.readexactly(frames.HEAD_BYTES)
            payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    async def find(self, kind: int, stream: int = 0) -> Frame:
        """The next frame of this kind; what comes before it is passed over."""
        while True:
            found = await self.frame()
            if (found.kind, found.stream) == (kind, stream):
                return found

    async def pong(self) -> list[Frame]:
        """What came until the other side had read all that was sent."""
        await self.send(frame(frames.PING, 0, 0, b"anything"))
        found = []
        while (each := await self.frame()) != Frame(frames.PING, frames.ACK, 0, b"anything"):
            found.append(each)
        return found

    async def answer(self, stream: int) -> Answer:
        """All of a stream, until its end."""
        answer, block, last = Answer(), b"", False
        while True:
            found = await self.frame()
            if found.stream != stream:
                continue
            if found.kind == frames.RST_STREAM:
                answer.reset = found.code
                return answer
            if found.kind == frames.DATA:
                answer.data += found.payload
                answer.sizes.append(len(found.payload))
            elif found.kind in (frames.HEADERS, frames.CONTINUATION):
                block += found.payload
                last = last or (found.kind == frames.HEADERS and bool(found.flags & frames.END_STREAM))
                if found.flags & frames.END_HEADERS:
                    fields = {str(name): str(value) for name, value in self.decoder.decode(block)}
                    block = b""
                    if last:
                        answer.trailers = fields
                        return answer
                    answer.fields = fields

    async def ended(self) -> list[Frame]:
        """What came until the other side closed."""
        found = []
        try:
            while True:
                found.append(await self.frame())
        except (asyncio.IncompleteReadError, ConnectionError):
            return found

    async def goaway(self) -> int:
        """The code with which the other side ends the connection, which it then closes."""
        last = [each for each in await self.ended() if each.kind == frames.GOAWAY]
        return last[-1].code


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    """As many DATA frames as it needs; flags: of the last."""
    most = frames.FRAME_BYTES
    pieces = [payload[at : at + most] for at in range(0, len(payload), most)] or [b""]
    last = len(pieces) - 1
    return b"".join(frame(frames.DATA, flags if i == last else 0, stream, each) for i, each in enumerate(pieces))


@asynccontextmanager
async def connected(
    address: str,
    settings: dict[int, int] | None = None,
    pieces: random.Random | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Peer]:
    """settings: with which it begins; None: it sends nothing, not even the preface."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    peer = Peer(reader, writer, pieces)
    try:
        if settings is not None:
            await peer.send(frames.PREFACE, frames.settings(settings), frame(frames.SETTINGS, frames.ACK, 0))
            assert (await peer.frame()).kind == frames.SETTINGS
            assert (await peer.frame()).kind == frames.WINDOW_UPDATE
            assert (await peer.frame()).kind == frames.SETTINGS  # that of ours
        yield peer
    finally:
        writer.transport.abort()

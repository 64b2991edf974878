"""One connection of HTTP/2 (RFC 9113): its frames, flow control both ways, the streams that it carries. Whose side it
is on, and what a header block means there, say `trestle.rpc` and `gateway.rpc`."""

from __future__ import annotations

import asyncio
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from trestle.http2 import frames
from trestle.http2.frames import HEAD_BYTES, LARGEST_WINDOW, ProtocolError
from trestle.http2.hpack import HeaderDecoder
from trestle.http2.outlet import Outlet
from trestle.http2.side import Side
from trestle.http2.stream import Stream
from trestle.http2.toll import Toll

STREAM_WINDOW: Final = 1024 * 1024
"""Bytes that a client may send on one stream before any has been taken."""
CONNECTION_WINDOW: Final = 16 * 1024 * 1024
"""The same over all streams. Of the connection's window all is given back at once: it is the streams that hold back."""
MAX_MESSAGE_FRAME: Final = 256 * 1024
"""The largest payload of a frame that is sent, whatever the other side would take: a stream is not to keep the others
waiting for long."""
_MOST_BLOCK: Final = 32 * 1024
"""Bytes of a header block as it comes."""
_HEAD: Final = struct.Struct(">IBI")
_WORD: Final = struct.Struct(">I")
_STREAMS_A_TOLL: Final = 16
"""So many streams whose windows a setting changes cost as much as such a frame."""
_PING: Final = bytes(8)


class Connection(Side, Outlet):
    """Make it inside a running loop. window: bytes that the other side takes now, over all streams; first_window: those
    of a new stream; frame_bytes: of one frame. full: the socket takes nothing more for now. streams: those that are
    open, by their numbers. write: puts whole frames on the socket. pay: for a frame that brings nothing, which raises
    `ProtocolError` where there are too many of them. why: it ended, in words."""

    write: Callable[[bytes], None]

    def __init__(self, stream_window: int = STREAM_WINDOW, patience: int = 1) -> None:
        """stream_window: bytes that may come on one stream before any has been taken. patience: how often `look` may
        find that nothing came before the other side is asked for a sign."""
        super().__init__()
        self.streams: dict[int, Any] = {}
        self.window = self.first_window = frames.FIRST_WINDOW
        self.frame_bytes = frames.FRAME_BYTES
        self.pay = Toll(self.loop).pay
        self.why = ""
        self.write = self.put
        self._stream_window = stream_window
        self._awaited = b""
        self._last = 0
        self._decoder = HeaderDecoder()
        self._buffer = b""
        self._first_settings = True
        self._block: tuple[int, int, bytearray] | None = None
        self._taken = 0
        self._blocked: OrderedDict[Stream, None] = OrderedDict()  # a dict's first entry is not cheap to find
        self._patience = patience
        self._silent = 0
        self._unsent = 0
        self._empties = False

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.write(self.opening())

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        if self._buffer:
            data = self._buffer + data
        try:
            at = self._read(data)
        except ProtocolError as error:
            self.give_up(error.code, error.why)
            return
        self._buffer = data[at:]
        if self.full:
            self.crowded()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.why = self.why or ("it was closed" if exc is None else str(exc))
        self._out.clear()
        self._blocked.clear()
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.lost()
        super().resume_writing()
        self.gone()

    def resume_writing(self) -> None:
        self._silent = 0
        super().resume_writing()

    # Its streams' side.

    def wait_for_window(self, stream: Stream) -> None:
        """The stream goes on once the connection's window is open again, after those that wait already."""
        self._blocked[stream] = None

    def forget(self, stream: Stream) -> None:
        """The stream is over."""
        self._blocked.pop(stream, None)
        if self.streams.pop(stream.id, None) is not None and not self.streams:
            self.idle()

    # Its owner's side.

    def look(self) -> None:
        """Asked now and then. Where nothing came for too long, and nothing was taken of what waits to be sent, the
        other side is asked for a sign; where not even that came the connection is given up."""
        unsent, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        self._silent = 0 if self._unsent < unsent else self._silent + 1
        if self._silent > self._patience + 1:
            self.why = self.why or "ping timeout"
            self.transport.abort()
        elif self._silent > self._patience:
            if self._first_settings:
                self.transport.abort()
            else:
                self.ping(_PING)

    def ping(self, payload: bytes) -> None:
        """payload: eight bytes, which come back."""
        self.write(frames.frame(frames.PING, 0, 0, payload))

    def give_up(self, code: int, why: str) -> None:
        """Ends it for what the other side did."""
        self._buffer = b""
        self._awaited = frames.PREFACE  # what still comes is not read
        if not self.transport.is_closing():
            self.why = why
            self.write(frames.goaway(self._last, code, why))
            self.close()

    # Frames.

    def _read(self, data: bytes) -> int:
        """Takes the whole frames there are; returns where the next one begins. Raises `ProtocolError`."""
        at, size = 0, len(data)
        if self._awaited:
            if self.transport.is_closing():
                return size
            at = len(self._awaited)
            if data[:at] != self._awaited[:size]:
                raise ProtocolError(frames.PROTOCOL_ERROR, "this is not HTTP/2, which gRPC speaks")
            if size < at:
                return 0
            self._awaited = b""
        while size - at >= HEAD_BYTES:
            first, flags, stream = _HEAD.unpack_from(data, at)
            length, kind = first >> 8, first & 0xFF
            if length > frames.FRAME_BYTES:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "a frame that is larger than SETTINGS allow")
            end = at + HEAD_BYTES + length
            if size < end:
                break
            payload = data[at + HEAD_BYTES : end]
            stream &= LARGEST_WINDOW
            at = end
            if kind == frames.DATA and self._block is None:
                self._data(stream, flags, payload)
            elif kind < len(_TAKES):
                if self._block is not None and kind != frames.CONTINUATION:
                    raise ProtocolError(frames.PROTOCOL_ERROR, "a header block that is broken off")
                if self._first_settings and kind != frames.SETTINGS:
                    raise ProtocolError(frames.PROTOCOL_ERROR, "SETTINGS come first")
                _TAKES[kind](self, stream, flags, payload)
            elif self._block is not None or self._first_settings:
                raise ProtocolError(frames.PROTOCOL_ERROR, "a frame of no known kind where it may not be")
        return at

    def _data(self, stream: int, flags: int, payload: bytes) -> None:
        length = len(payload)
        self._taken += length
        if self._taken >= CONNECTION_WINDOW // 2:
            self.write(frames.window_update(0, self._taken))
            self._taken = 0
        if flags & frames.PADDED:
            payload = frames.unpadded(frames.PADDED, payload)
        to = self.streams.get(stream)
        if to is None or to.ended:
            self._not_open(stream, to)
            return
        if not length:
            self.pay()
        to.taken += length
        if to.taken > self._stream_window:
            raise ProtocolError(frames.FLOW_CONTROL_ERROR, "more DATA than the window takes")
        to.feed(payload, bool(flags & frames.END_STREAM))

    def _not_open(self, number: int, stream: Stream | None) -> None:
        """Something came for a stream that takes nothing more. It may have been on its way when the stream ended."""
        if not self.opened(number):
            raise ProtocolError(frames.PROTOCOL_ERROR, "a frame of a stream that was never opened")
        self.late(number, stream)

    def late(self, number: int, stream: Stream | None) -> None:
        """Something came for a stream that has ended. stream: as far as it is still open."""
        self.pay()
        self.refuse(number, frames.STREAM_CLOSED, stream)

    def refuse(self, number: int, code: int, stream: Stream | None) -> None:
        """A stream ends, for what came on it. stream: as far as it is open."""
        self.write(frames.rst_stream(number, code))
        if stream is not None:
            self._reset(stream)

    def _reset(self, stream: Stream) -> None:
        self.forget(stream)
        stream.lost()

    def _headers(self, stream: int, flags: int, payload: bytes) -> None:
        if flags & (frames.PADDED | frames.HAS_PRIORITY):
            payload = frames.unpadded(flags, payload)
        if stream % 2 == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a client's streams have odd numbers")
        if flags & frames.END_HEADERS:
            self.headers(stream, flags, self._decoder.decode(payload))
        else:
            self._block = (stream, flags, bytearray(payload))

    def _continuation(self, stream: int, flags: int, payload: bytes) -> None:
        if self._block is None or self._block[0] != stream:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a CONTINUATION of nothing")
        self.pay()
        _, begun, block = self._block
        block += payload
        if len(block) > _MOST_BLOCK:
            raise ProtocolError(frames.ENHANCE_YOUR_CALM, "more headers than may be sent")
        if flags & frames.END_HEADERS:
            self._block = None
            self.headers(stream, begun, self._decoder.decode(bytes(block)))

    def _priority(self, stream: int, flags: int, payload: bytes) -> None:
        self.pay()
        if stream == 0:
            raise ProtocolError(frames.PROTOCOL_ERROR, "PRIORITY of no stream")
        if len(payload) != 5:
            if not self.opened(stream):
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "PRIORITY of a wrong length")
            self.refuse(stream, frames.FRAME_SIZE_ERROR, self.streams.get(stream))

    def _rst_stream(self, number: int, flags: int, payload: bytes) -> None:
        self.pay()
        if len(payload) != 4:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "RST_STREAM of a wrong length")
        if not self.opened(number):
            raise ProtocolError(frames.PROTOCOL_ERROR, "RST_STREAM of a stream that was never opened")
        stream = self.streams.get(number)
        if stream is not None:
            stream.reset_by = _WORD.unpack(payload)[0]
            self._reset(stream)

    def _settings(self, stream: int, flags: int, payload: bytes) -> None:
        self.pay()
        if stream:
            raise ProtocolError(frames.PROTOCOL_ERROR, "SETTINGS of a stream")
        if flags & frames.ACK:
            if payload:
                raise ProtocolError(frames.FRAME_SIZE_ERROR, "an acknowledgement that says something")
            return
        first_window = self.first_window
        for name, value in frames.read_settings(payload):
            if name == frames.INITIAL_WINDOW_SIZE:
                first_window = value
            elif name == frames.MAX_FRAME_SIZE:
                self.frame_bytes = min(value, MAX_MESSAGE_FRAME)
            elif name == frames.HEADER_TABLE_SIZE and value < frames.TABLE_BYTES and not self._empties:
                self._empties = True
                self.write = self._say_empty
            else:
                self.set(name, value)
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))
        if first_window != self.first_window:
            self._set_first_window(first_window)  # only now: a wider window counts once it is acknowledged
        if self._first_settings:
            self._first_settings = False
            self.settled()

    def _say_empty(self, data: bytes) -> None:
        """`write`, until a header block leaves: that one says that we keep no table, as it must to whoever wants a
        smaller one than there was (RFC 7541, 4.2)."""
        said = frames.with_empty_table(data)
        if said is not data:
            self.write = self.put
        self.put(said)

    def _set_first_window(self, value: int) -> None:
        self.pay(len(self.streams) // _STREAMS_A_TOLL)
        more, self.first_window = value - self.first_window, value
        for stream in tuple(self.streams.values()):
            stream.window += more
            if stream.window > LARGEST_WINDOW:
                raise ProtocolError(frames.FLOW_CONTROL_ERROR, "a window beyond its bound")
            if more > 0 and stream.sending:
                stream.pump()

    def _push_promise(self, stream: int, flags: int, payload: bytes) -> None:
        raise ProtocolError(frames.PROTOCOL_ERROR, "nothing is to be promised")

    def _ping(self, stream: int, flags: int, payload: bytes) -> None:
        self.pay()
        if stream:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a PING of a stream")
        if len(payload) != len(_PING):
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a PING of a wrong length")
        if flags & frames.ACK:
            self.pinged_back(payload)
        else:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, stream: int, flags: int, payload: bytes) -> None:
        self.pay()
        if stream:
            raise ProtocolError(frames.PROTOCOL_ERROR, "a GOAWAY of a stream")
        if len(payload) < 8:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a GOAWAY of a wrong length")
        last, code = _WORD.unpack_from(payload)[0], _WORD.unpack_from(payload, 4)[0]
        self.going(last & LARGEST_WINDOW, code)

    def _window_update(self, number: int, flags: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError(frames.FRAME_SIZE_ERROR, "a WINDOW_UPDATE of a wrong length")
        more = _WORD.unpack(payload)[0] & LARGEST_WINDOW
        code = frames.FLOW_CONTROL_ERROR if more else frames.PROTOCOL_ERROR
        if number == 0:
            self.window += more
            if not more or self.window > LARGEST_WINDOW:
                raise ProtocolError(code, "a WINDOW_UPDATE beyond its bounds")
            blocked = self._blocked
            while blocked and self.window > 0:
                blocked.popitem(last=False)[0].pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            if not self.opened(number):
                raise ProtocolError(frames.PROTOCOL_ERROR, "a WINDOW_UPDATE of a stream that was never opened")
            return
        stream.window += more
        if not more or stream.window > LARGEST_WINDOW:
            self.refuse(number, code, stream)
        elif stream.sending:
            stream.pump()


_Take: TypeAlias = Callable[[Connection, int, int, bytes], None]
_TAKES: Final[tuple[_Take, ...]] = (  # in the order of their numbers
    Connection._data,  # noqa: SLF001
    Connection._headers,  # noqa: SLF001
    Connection._priority,  # noqa: SLF001
    Connection._rst_stream,  # noqa: SLF001
    Connection._settings,  # noqa: SLF001
    Connection._push_promise,  # noqa: SLF001
    Connection._ping,  # noqa: SLF001
    Connection._goaway,  # noqa: SLF001
    Connection._window_update,  # noqa: SLF001
    Connection._continuation,  # noqa: SLF001
)

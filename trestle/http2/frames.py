"""HTTP/2 frames (RFC 9113), as far as gRPC sends and takes them.  Pure."""

from __future__ import annotations

import struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every client begins with."""
HEAD_BYTES: Final = 9
"""Of a frame, before its payload."""
FRAME_BYTES: Final = 16 * 1024
"""The largest payload that may be sent before the other side has said otherwise, and the largest one taken here."""
FIRST_WINDOW: Final = 65_535
"""Bytes of DATA that may be sent before the other side has said otherwise, of a stream and of the connection."""
LARGEST_WINDOW: Final = 2**31 - 1
TABLE_BYTES: Final = 4096
"""Of the table of headers (RFC 7541), before the other side has said otherwise."""

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK: Final = 0x1
END_STREAM: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
HAS_PRIORITY: Final = 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

(
    NO_ERROR,
    PROTOCOL_ERROR,
    INTERNAL_ERROR,
    FLOW_CONTROL_ERROR,
    SETTINGS_TIMEOUT,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED_STREAM,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_ERROR,
    ENHANCE_YOUR_CALM,
) = range(12)

_HEAD: Final = struct.Struct(">IBI")
_WORD: Final = struct.Struct(">I")
_SETTING: Final = struct.Struct(">HI")
_EMPTY_TABLE: Final = b"\x20"


class ProtocolError(Exception):
    """What came is not HTTP/2, or more of it than anybody may send. code: for the GOAWAY. why: in words."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def message(stream: int, data: bytes, flags: int = 0) -> bytes:
    """One gRPC message in one DATA frame."""
    size = len(data)
    return _HEAD.pack(size + 5 << 8 | DATA, flags, stream) + b"\0" + _WORD.pack(size) + data


def headers(stream: int, block: bytes, end: bool, most: int = FRAME_BYTES) -> bytes:
    """A header block, in as many frames as it needs. end: of the stream. most: bytes of one frame's payload."""
    flags = END_STREAM if end else 0
    if len(block) <= most:
        return _HEAD.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    pieces = [block[at : at + most] for at in range(0, len(block), most)]
    last = len(pieces) - 1
    return b"".join(
        frame(CONTINUATION if i else HEADERS, (0 if i else flags) | (END_HEADERS if i == last else 0), stream, piece)
        for i, piece in enumerate(pieces)
    )


def with_empty_table(data: bytes) -> bytes:
    """Whole frames, in which the first header block begins with the word that its sender's table is empty; the same
    where there is none. Blocks are such that they need no table."""
    at = 0
    while at < len(data):
        first, flags, stream = _HEAD.unpack_from(data, at)
        if first & 0xFF == HEADERS:
            block = at + HEAD_BYTES
            rest = _HEAD.pack(first & ~0xFF | CONTINUATION, flags & END_HEADERS, stream)
            return data[:at] + frame(HEADERS, flags & ~END_HEADERS, stream, _EMPTY_TABLE) + rest + data[block:]
        at += HEAD_BYTES + (first >> 8)
    return data


def settings(values: dict[int, int]) -> bytes:
    """Our side's settings."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in values.items()))


def read_settings(payload: bytes) -> list[tuple[int, int]]:
    """The other side's. Raises `ProtocolError`."""
    if len(payload) % _SETTING.size:
        raise ProtocolError(FRAME_SIZE_ERROR, "SETTINGS of no whole number of settings")
    values = list(_SETTING.iter_unpack(payload))
    for name, value in values:
        if name == INITIAL_WINDOW_SIZE and value > LARGEST_WINDOW:
            raise ProtocolError(FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE beyond its bound")
        if name == MAX_FRAME_SIZE and not FRAME_BYTES <= value < 1 << 24:
            raise ProtocolError(PROTOCOL_ERROR, "MAX_FRAME_SIZE beyond its bounds")
        if name == ENABLE_PUSH and value > 1:
            raise ProtocolError(PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
    return values


def rst_stream(stream: int, code: int) -> bytes:
    """The end of one stream, for its sender at once."""
    return frame(RST_STREAM, 0, stream, _WORD.pack(code))


def goaway(last: int, code: int, why: str = "") -> bytes:
    """No stream above `last` is served."""
    return frame(GOAWAY, 0, 0, _WORD.pack(last) + _WORD.pack(code) + why.encode("ascii", "replace"))


def window_update(stream: int, more: int) -> bytes:
    """So many bytes more may be sent."""
    return frame(WINDOW_UPDATE, 0, stream, _WORD.pack(more))


def unpadded(flags: int, payload: bytes) -> bytes:
    """What DATA or HEADERS hold beside padding and priority. Raises `ProtocolError`."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise ProtocolError(FRAME_SIZE_ERROR, "a padded frame that is empty")
        start, end = 1, end - payload[0]
    if flags & HAS_PRIORITY:
        start += 5
    if start > end:
        raise ProtocolError(PROTOCOL_ERROR, "more padding than the frame is long")
    return payload[start:end]

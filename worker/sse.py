"""Server-sent events, bytes in, events out: the parser of the WHATWG standard, incremental and pure.

Line ends are CR, LF or CRLF; several `data` lines join with LF; comments, `id`, `retry` and unknown fields are passed
over; a byte order mark may stand first; events may be cut anywhere, inside UTF-8 too. An event that the stream's end
leaves without its blank line is not dispatched, as the standard says; `rest` tells of it all the same, as `stray` does
of lines that are no field.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from trestle.errors import CallError, Reason

Event: TypeAlias = tuple[str, bytes]
"""The event's name (empty where the stream gave none) and its data."""

_BOM: Final = b"\xef\xbb\xbf"
_PASSED_OVER: Final = frozenset({b"", b"id", b"retry"})  # a comment has no name
_MAX_STRAY: Final = 64 * 1024


class SseParser:
    """Feeds on the body of one `text/event-stream` answer.

    max_event_bytes bounds what one event may hold, its unfinished lines included; beyond it `feed` raises `CallError`
    (UPSTREAM_PROTOCOL).
    """

    __slots__ = ("_data", "_held", "_held_bytes", "_max", "_name", "_size", "_skip_lf", "_start", "_stray")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self._held: list[bytes] = []  # an unfinished line, in pieces, so that a long one is not copied at each read
        self._held_bytes = 0
        self._skip_lf = False  # the last byte was a CR: an LF that follows belongs to it
        self._start = True  # nothing but, perhaps, part of a byte order mark has been seen
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0
        self._stray = bytearray()  # lines of no field since the last data

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete, in order."""
        events: list[Event] = []
        if self._start:
            data = self._past_bom(data)
        if self._skip_lf and data:
            self._skip_lf = False
            if data[0] == 0x0A:
                data = data[1:]
        if b"\r" in data:
            # Lone CRs are line ends too; a CR at the very end may be half of a CRLF.
            if data[-1] == 0x0D:
                self._skip_lf = True
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if self._held and lines:
            self._held.append(lines[0])
            lines[0] = b"".join(self._held)
            self._held.clear()
            self._held_bytes = 0
        held, size, stray = self._data, self._size, self._stray
        for line in lines:
            if line[:6] == b"data: ":
                held.append(line[6:])
                if stray:
                    stray.clear()
                size += len(line)
                if size > self._max:
                    self._too_large()
            elif not line:
                if held:
                    events.append((self._name, held[0] if len(held) == 1 else b"\n".join(held)))
                    held.clear()
                    size = 0
                if self._name:
                    self._name = ""
            else:
                size += self._field(line)
                if size > self._max:
                    self._too_large()
        self._size = size
        if rest:
            self._held.append(rest)
            self._held_bytes += len(rest)
            if self._held_bytes + size > self._max:
                self._too_large()
        return events

    def next_event(self, data: bytes, others: int) -> int:
        """Where in the bytes that come next an event begins of which nothing has come, behind so many others; -1 where
        that is not to be told at a glance, or data is more than one event may be."""
        if self._name or self._stray or len(data) > self._max or (self._start and data[:1] in (b"", _BOM[:1])):
            return -1
        at = 0
        for _ in range(others + 1 if self._held or self._data else others):
            at = data.find(b"\n\n", at) + 2
            if at < 2:
                return -1
        return at

    def rest(self) -> Event | None:
        """The event that the stream's end leaves without its blank line, if its data is whole: JSON, or `[DONE]`. Some
        servers and proxies leave the last line ends out. Nothing is fed after it."""
        events = self.feed(b"\n\n\n")
        return events[0] if events and _is_whole(events[0][1]) else None

    def stray(self) -> bytes:
        """The lines of no field that came after the last data: so comes an error that is written into a stream as if it
        were the answer. Of many the last 64 KB. Nothing is fed after it."""
        self.feed(b"\n")
        return bytes(self._stray)

    def _field(self, line: bytes) -> int:
        """Takes a line other than the common `data: `; returns the bytes it added to the event."""
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data.append(value)
            self._stray.clear()
            return len(line)
        if name == b"event":
            self._name = value.decode("utf-8", "replace")
        elif name not in _PASSED_OVER:
            self._stray += line
            self._stray += b"\n"
            del self._stray[:-_MAX_STRAY]
        return 0

    def _past_bom(self, data: bytes) -> bytes:
        if self._held:
            data = b"".join(self._held) + data
            self._held.clear()
            self._held_bytes = 0
        if len(data) < 3 and _BOM.startswith(data):
            if data:
                self._held.append(data)
                self._held_bytes = len(data)
            return b""
        self._start = False
        return data[3:] if data.startswith(_BOM) else data

    def _too_large(self) -> None:
        raise CallError(Reason.UPSTREAM_PROTOCOL, f"The upstream sent an event of more than {self._max} bytes.")


def _is_whole(data: bytes) -> bool:
    if data.strip() == b"[DONE]":
        return True
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return data.lstrip()[:1] in (b"{", b"[")

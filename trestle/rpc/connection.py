"""A client's connection: what is asked for on it becomes a call, or is refused."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

import grpc

from trestle.http2 import frames, hpack
from trestle.http2.connection import CONNECTION_WINDOW, STREAM_WINDOW, Connection
from trestle.http2.frames import LARGEST_WINDOW, ProtocolError
from trestle.http2.hpack import MAX_LIST_BYTES, Fields
from trestle.http2.messages import CODINGS, metadata_value, seconds, status_fields
from trestle.rpc.call import HEAD, Call
from trestle.rpc.method import Method

Refusal: TypeAlias = tuple[grpc.StatusCode, str]

_LAST_CALLS: Final = b"trestle."
_NO_POST: Final = hpack.encode(((b":status", b"405"), (b"allow", b"POST")))
_NO_GRPC: Final = hpack.encode(((b":status", b"415"),))
_RESERVED: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
# What the transport needs and no servicer: not part of a call's metadata.
_OURS: Final = frozenset((
    b":method", b":scheme", b":path", b":authority", b"te", b"content-type", b"grpc-timeout", b"grpc-encoding",
    b"grpc-accept-encoding", b"content-length",
))  # fmt: skip
_PSEUDO: Final = ord(":")
_LINGER: Final = 1.0
"""Seconds that a client has to read that it is to go, and to close. Were it not for them, what it sends meanwhile would
have the kernel reset the connection, and its calls fail that it could make elsewhere."""
_MOST_NAMES: Final = 1024
_LONGEST_NAME: Final = 64
# A client that does not read what it asked for is asked for nothing more once so many bytes wait for it.
_MOST_UNSENT: Final = 4 * 1024 * 1024
_GRPC: Final = re.compile(rb"application/grpc(?![^+;])")
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")


@dataclass(frozen=True, slots=True)
class Served:
    """What a server serves, and to whom. name: what it calls itself to its callers. methods: by path.
    max_message_bytes: of a request; limit_setting: the setting that says so, empty where none does. max_streams: calls
    that one connection may have open. admit: says why a call of a guarded method may not be, None where it may; or is
    None, where anybody may call. came, went: told of each connection."""

    name: str
    methods: Mapping[bytes, Method]
    max_message_bytes: int
    limit_setting: str
    max_streams: int
    admit: Callable[[Call], Refusal | None] | None
    came: Callable[[ServerConnection], None]
    went: Callable[[ServerConnection], None]


class ServerConnection(Connection):
    """One client's."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self._awaited = frames.PREFACE
        self.served = served
        self._names: dict[bytes, str] = {}
        self._going = False
        self._leaving: asyncio.TimerHandle | None = None

    def drain(self) -> None:
        """No new calls; it ends with the last open one. A client that has just begun one has until our ping returns to
        do so (RFC 9113, 6.8)."""
        if not self._going:
            self.write(frames.goaway(LARGEST_WINDOW, frames.NO_ERROR))
            self.ping(_LAST_CALLS)

    def go(self) -> None:
        """No new calls from now on; it ends with the last open one."""
        if not self._going:
            self._going = True
            self.write(frames.goaway(self._last, frames.NO_ERROR))
        if not self.streams:
            self._leave()

    def end(self) -> None:
        """It and its calls end now."""
        for call in tuple(self.streams.values()):
            call.stop(grpc.StatusCode.UNAVAILABLE, f"The {self.served.name} is stopping.")
        self.close()

    # Of a connection.

    def opening(self) -> bytes:
        self.served.came(self)
        return frames.settings({
            frames.MAX_CONCURRENT_STREAMS: self.served.max_streams,
            frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            frames.MAX_HEADER_LIST_SIZE: MAX_LIST_BYTES,
        }) + frames.window_update(0, CONNECTION_WINDOW - frames.FIRST_WINDOW)

    def opened(self, stream: int) -> bool:
        return 0 < stream <= self._last

    def pinged_back(self, payload: bytes) -> None:
        if payload == _LAST_CALLS:
            self.go()

    def crowded(self) -> None:
        if self.transport.get_write_buffer_size() > _MOST_UNSENT:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.transport.resume_reading()

    def idle(self) -> None:
        if self._going:
            self._leave()

    def gone(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        self.served.went(self)

    def headers(self, stream: int, flags: int, fields: Fields) -> None:
        end = bool(flags & frames.END_STREAM)
        if stream <= self._last:
            self._trailers(stream, fields, end)
            return
        self._last = stream
        if self._going or len(self.streams) >= self.served.max_streams:
            self.pay()
            self.refuse(stream, frames.REFUSED_STREAM, None)
            return
        known: dict[bytes, bytes] = {}
        metadata: list[tuple[str, str | bytes]] = []
        names = self._names
        for name, value in fields:
            if name in _OURS:
                if name[0] == _PSEUDO and (name in known or metadata):
                    self._malformed(stream)
                    return
                known[name] = value
                continue
            text = names.get(name) or self._name(name)
            if not text:
                self._malformed(stream)
                return
            try:
                said = metadata_value(text, value)
            except ValueError as error:
                self._answer(stream, _refusal(grpc.StatusCode.INTERNAL, str(error)), end)
                return
            if said.__class__ is str and not said.isprintable():
                self._malformed(stream)
                return
            metadata.append((text, said))
        self._asked(stream, known, tuple(metadata), end)

    # Its own.

    def _leave(self) -> None:
        if self._leaving is None:
            self._leaving = self.loop.call_later(_LINGER, self.close)

    def _trailers(self, stream: int, fields: Fields, end: bool) -> None:
        """Headers after a request, which gRPC's clients do not send."""
        call = self.streams.get(stream)
        if call is None or call.ended:
            raise ProtocolError(frames.STREAM_CLOSED, "HEADERS of a stream that has ended")
        if not end or any(name[:1] == b":" for name, _ in fields):
            self._malformed(stream)
        else:
            call.feed(b"", end=True)

    def _name(self, name: bytes) -> str:
        """A name that is not ours, as text; empty for one that no header may have."""
        if name in _RESERVED or not _TOKEN.fullmatch(name):
            return ""
        text = name.decode("ascii")
        if len(self._names) < _MOST_NAMES and len(name) <= _LONGEST_NAME:
            self._names[name] = text
        return text

    def _asked(
        self, stream: int, known: Mapping[bytes, bytes], metadata: tuple[tuple[str, str | bytes], ...], end: bool
    ) -> None:
        """A call is asked for. known: those of its headers that are ours."""
        path = known.get(b":path")
        whole = b":method" in known and b":scheme" in known
        if not path or not whole or known.get(b"te", b"trailers") != b"trailers":
            self._malformed(stream)
        elif known[b":method"] != b"POST":
            self._answer(stream, _NO_POST, end)
        elif not _GRPC.match(known.get(b"content-type", b"")):
            self._answer(stream, _NO_GRPC, end)
        else:
            method = self.served.methods.get(path)
            coding = known.get(b"grpc-encoding", CODINGS[0])
            given = known.get(b"grpc-timeout")
            timeout = None if given is None else seconds(given)
            if method is None:
                words = f"There is no method {path[:256].decode('ascii', 'replace')}."
                self._answer(stream, _refusal(grpc.StatusCode.UNIMPLEMENTED, words), end)
            elif coding not in CODINGS:
                words = "Requests may be compressed by gzip or deflate."
                self._answer(stream, _refusal(grpc.StatusCode.UNIMPLEMENTED, words), end)
            elif given is not None and timeout is None:
                words = "grpc-timeout is not what gRPC says it is."
                self._answer(stream, _refusal(grpc.StatusCode.INTERNAL, words), end)
            else:
                self._begin(Call(self, stream, method, metadata, timeout, coding), method, end)

    def _begin(self, call: Call, method: Method, end: bool) -> None:
        self.streams[call.id] = call
        admit = self.served.admit
        refused = admit(call) if admit is not None and method.guarded else None
        if refused is not None:
            call.ended = end
            call.stop(*refused)
            return
        call.begin()
        if end:
            call.feed(b"", end=True)

    def _answer(self, stream: int, block: bytes, end: bool) -> None:
        """The whole answer to what never became a call. end: all of its request came."""
        answer = frames.headers(stream, block, end=True)
        self.write(answer if end else answer + frames.rst_stream(stream, frames.NO_ERROR))

    def _malformed(self, stream: int) -> None:
        self.pay()
        self.refuse(stream, frames.PROTOCOL_ERROR, self.streams.get(stream))


def _refusal(code: grpc.StatusCode, words: str) -> bytes:
    return HEAD + hpack.encode([*status_fields(code.value[0], words), (b"grpc-accept-encoding", b",".join(CODINGS))])

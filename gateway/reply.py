"""Answers on their way to a client, written to its connection as few bytes and as few steps as HTTP/1 takes.

aiohttp reads the requests and keeps the connections; of an answer its server asks only what stands in `Reply`. Its own
response objects take each answer through a multidict, six coroutines and a writer (docs/performance.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

_BODILESS: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
# From here on two writes are cheaper than one copy.
_LARGE: Final = 1 << 16


class Reply:
    """One answer. http: the request. headers: all but those of the message's frame, names in lower case.

    keep_alive: whether the connection outlives it. status: the HTTP status.
    """

    __slots__ = ("_body", "_headers", "_http", "keep_alive", "status")

    def __init__(
        self, http: web.BaseRequest, headers: Mapping[str, str], body: bytes | None = b"", status: int = 200
    ) -> None:
        """body: None for one that comes by and by."""
        self.keep_alive = http.keep_alive
        self.status = status
        self._http = http
        self._headers = headers
        self._body = body

    def force_close(self) -> None:
        """The connection ends with it."""
        self.keep_alive = False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Sends it; aiohttp's server does once its handler has returned. Raises `ConnectionError`, `ValueError` for a
        header that is none."""
        body = self._body
        if body is None:
            return
        self._body = None
        if self.status in _BODILESS:
            self._write(self._head(""))
        else:
            head = self._head(f"content-length: {len(body)}\r\n")
            if self._http.method == hdrs.METH_HEAD:
                self._write(head)
            elif len(body) < _LARGE:
                self._write(head + body)
            else:
                self._write(head)
                self._write(body)
        await self.room()

    async def write_eof(self) -> None:
        """Nothing: it has ended."""

    @property
    def blocked(self) -> bool:
        """Whether the client has to read first."""
        return self._http.protocol.writing_paused

    async def room(self) -> None:
        """Returns once there is room for more. Raises `ConnectionError`."""
        if self._http.protocol.writing_paused:
            await self._http.writer.drain()

    def _write(self, data: bytes) -> None:
        transport = self._http.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        transport.write(data)

    def _head(self, frame: str) -> bytes:
        """frame: the header that says where the body ends; empty where nothing does."""
        version = self._http.version
        if self.keep_alive:
            connection = "" if version >= HttpVersion11 else "connection: keep-alive\r\n"
        else:
            connection = "connection: close\r\n" if version >= HttpVersion11 else ""
        headers = self._headers
        if connection and hdrs.CONNECTION.lower() in headers:
            connection = ""
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if fields.count("\n") != len(headers) or fields.count("\r") != len(headers):
            raise ValueError("a header of the answer holds the end of a line")
        first = _first_line(version, self.status)
        return f"{first}{fields}{frame}{connection}{_date(int(time.time()))}\r\n".encode()


class StreamReply(Reply):
    """One that comes by and by: `begin` it, `write` its pieces, `end` it."""

    __slots__ = ("_chunked", "_opening")

    def __init__(self, http: web.BaseRequest, headers: Mapping[str, str]) -> None:
        super().__init__(http, headers, None)
        self._chunked = http.version >= HttpVersion11
        if not self._chunked:
            self.keep_alive = False  # only its end says where the body does
        self._opening = self._head("transfer-encoding: chunked\r\n" if self._chunked else "")

    def write(self, data: bytes) -> None:
        """Sends some bytes of the body, and before the first ones the head. Ask for `room` afterwards. Raises
        `ConnectionError`."""
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._opening, len(data), data)
        elif self._opening:
            data = self._opening + data
        self._opening = b""
        self._write(data)

    def end(self, data: bytes) -> None:
        """Sends the last bytes, which may be none, and the end. To who asks for the head alone it is all there is."""
        if self._http.method == hdrs.METH_HEAD:
            self._write(self._opening)
        elif self._chunked:
            last = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
            self._write(self._opening + last)
        elif self._opening or data:
            self._write(self._opening + data)
        self._opening = b""


@lru_cache(maxsize=64)
def _first_line(version: tuple[int, int], status: int) -> str:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = ""
    minor = 0 if version < HttpVersion11 else 1  # the highest that is spoken here, whatever else was asked for
    return f"HTTP/1.{minor} {status} {reason}\r\n"


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return f"date: {formatdate(second, usegmt=True)}\r\n"

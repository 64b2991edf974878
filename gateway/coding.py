"""Bodies that come compressed, undone as they come. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from trestle.errors import CallError, Reason

CODINGS: Final = ("gzip", "deflate")
"""How a request's body may be compressed."""
UNKNOWN: Final = "unsupported_content_encoding"
"""The code of a request whose body is compressed as nobody here can undo."""
_GZIP: Final = 16 + zlib.MAX_WBITS
_MOST_MEMBERS: Final = 100  # each costs what is behind it a copy


class Unpacker:
    """One body. coding: of `CODINGS`. Raises `CallError` for bytes that are none of it."""

    __slots__ = ("_coding", "_members", "_stream")

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._members = 0
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes, most: int) -> bytes:
        """What these bytes stand for. Of what is longer than `most`, which is at least one, that much: it is not to be
        fed again."""
        out = b""
        while data and len(out) < most:
            stream = self._stream
            if stream is None or stream.eof:
                stream = self._stream = self._begin(data)
            try:
                out += stream.decompress(data, most - len(out))
            except zlib.error:
                raise _broken() from None
            data = stream.unused_data
        return out

    def end(self) -> None:
        """All bytes have been fed."""
        if self._stream is None or not self._stream.eof:
            raise _broken()

    def _begin(self, data: bytes) -> zlib._Decompress:
        gzip = self._coding == "gzip"
        self._members += 1
        if self._members > (_MOST_MEMBERS if gzip else 1):
            raise _broken()
        if gzip:
            return zlib.decompressobj(_GZIP)
        # With zlib's head, as it is meant (RFC 9110, 8.4.1.2), or without, as some send it.
        return zlib.decompressobj(zlib.MAX_WBITS if data[0] & 15 == zlib.DEFLATED else -zlib.MAX_WBITS)


def unpacker(coding: str | None) -> Unpacker | None:
    """For a body with this `Content-Encoding`; None for one that is as it is. Raises `CallError` for what nobody here
    can undo."""
    if coding is None:
        return None
    coding = coding.lower()
    if coding in CODINGS:
        return Unpacker(coding)
    if coding in ("", "identity"):
        return None
    raise CallError(
        Reason.INVALID_REQUEST,
        f"The body's content-encoding is not one of those taken: {', '.join(CODINGS)}.",
        code=UNKNOWN,
    )


def _broken() -> CallError:
    return CallError(
        Reason.INVALID_REQUEST, "The body is not what its content-encoding says.", code="bad_request"
    )

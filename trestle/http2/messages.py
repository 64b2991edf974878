"""What gRPC puts into HTTP/2: messages in their frames, metadata, statuses and timeouts
(https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).  Pure."""

from __future__ import annotations

import base64
import binascii
import math
import re
import zlib
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import quote_from_bytes, unquote

from trestle.http2 import hpack

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

PREFIX_BYTES: Final = 5
"""Before each message: whether it is compressed, its length."""
CODINGS: Final = (b"identity", b"deflate", b"gzip")
"""In which messages may come. Ours go as they are."""
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST: Final = 10 * 365 * 86400.0
_UNQUOTED: Final = " !\"#$&'()*+,-./0123456789:;<=>?@[]^_`{|}~\\"


def prefix_of(message: bytes) -> bytes:
    """What stands before a message."""
    return b"\0" + len(message).to_bytes(4, "big")


def length(prefix: bytes | bytearray) -> int:
    """Bytes of the message that follows its prefix."""
    return int.from_bytes(prefix[1:PREFIX_BYTES], "big")


def unzipped(message: bytes | bytearray, coding: bytes, most: int) -> bytes | None:
    """A message that was compressed; None where it was not in this way, or becomes more than `most` bytes."""
    if coding not in CODINGS[1:]:
        return None
    unzip = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        whole = unzip.decompress(message, most + 1)
    except zlib.error:
        return None
    return whole if unzip.eof and len(whole) <= most else None


def seconds(timeout: bytes) -> float | None:
    """What a `grpc-timeout` says; None for what is none."""
    match = _TIMEOUT.fullmatch(timeout)
    return None if match is None else min(int(match[1]) * _SECONDS[match[2]], _LONGEST)


def timeout_value(left: float) -> bytes:
    """A `grpc-timeout` of so many seconds."""
    milliseconds = max(1, math.ceil(left * 1000))
    return b"%dm" % milliseconds if milliseconds < 100_000_000 else b"%dS" % min(math.ceil(left), 99_999_999)


def status_fields(code: int, text: str) -> list[tuple[bytes, bytes]]:
    """A call's status as fields."""
    fields = [(b"grpc-status", b"%d" % code)]
    if text:
        fields.append((b"grpc-message", quote_from_bytes(text.encode(), _UNQUOTED).encode("ascii")))
    return fields


def status_text(value: bytes) -> str:
    """What a `grpc-message` says."""
    return unquote(value.decode("latin-1"), errors="replace")


def metadata_block(metadata: Metadata) -> bytes:
    """Metadata as a header block. Raises UnicodeEncodeError for text that is not ASCII."""
    return hpack.encode(
        (name.encode("ascii"), base64.b64encode(value) if isinstance(value, bytes) else value.encode("ascii"))
        for name, value in metadata
    )


def metadata_value(name: str, value: bytes) -> str | bytes:
    """One value, of metadata that came. Raises ValueError for one that is said to be base64 and is not."""
    if not name.endswith("-bin"):
        return str(value, "utf-8", "replace")
    try:
        return b",".join(base64.b64decode(each + b"=" * (-len(each) % 4)) for each in value.split(b","))
    except binascii.Error:
        raise ValueError(f"{name} is not base64.") from None

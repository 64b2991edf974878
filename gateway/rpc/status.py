"""How a call to a worker ended, in gRPC's codes, and as the error that it means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import grpc

from trestle.errors import DETAILS_KEY, CallError
from trestle.http2 import frames

_C: Final = grpc.StatusCode
OF_RESET: Final[Mapping[int, grpc.StatusCode]] = {
    frames.REFUSED_STREAM: _C.UNAVAILABLE,
    frames.CANCEL: _C.CANCELLED,
    frames.ENHANCE_YOUR_CALM: _C.RESOURCE_EXHAUSTED,
}
OF_HTTP: Final[Mapping[bytes, grpc.StatusCode]] = {
    b"400": _C.INTERNAL,
    b"401": _C.UNAUTHENTICATED,
    b"403": _C.PERMISSION_DENIED,
    b"404": _C.UNIMPLEMENTED,
    b"429": _C.UNAVAILABLE,
    b"502": _C.UNAVAILABLE,
    b"503": _C.UNAVAILABLE,
    b"504": _C.UNAVAILABLE,
}


def error_of(code: int, message: str, trailers: tuple[tuple[str, str | bytes], ...]) -> CallError:
    """A failed call as the error it carries. code: of its status."""
    details: bytes | None = None
    for name, value in trailers:
        if name == DETAILS_KEY:
            details = value if isinstance(value, bytes) else value.encode()
    return CallError.from_status(code, message, details)

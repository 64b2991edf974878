"""The methods of a worker's that can be called, and who has the connections for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from gateway.rpc.call import Call, Metadata
from trestle.http2 import hpack

if TYPE_CHECKING:
    from gateway.rpc.connection import ClientConnection


class Picker(Protocol):
    """Who has connections."""

    def ready(self, metadata: Metadata) -> ClientConnection | None:
        """One for a call with this metadata; None where none is ready."""

    def queue(self, call: Call, block: bytes) -> None:
        """The call is told to `go` with the block once there is one for it, or to `fail` where it seems that there will
        be none. Both may be before this returns."""

    def leave(self, call: Call) -> str:
        """The call waits no longer, if it did; returns what it waited for, in words."""


class Method:
    """One method of a worker's. name: without its service. response_type: of its responses. Call it to make a call."""

    __slots__ = ("_decode", "_picker", "_request", "name")

    def __init__(self, picker: Picker, service: str, name: str, response_type: Any, scheme: bytes) -> None:
        self._picker = picker
        self.name = name
        self._decode = response_type.FromString
        path = f"/{service}/{name}".encode("ascii")
        self._request = hpack.encode(((b":method", b"POST"), (b":scheme", scheme), (b":path", path)))

    def __call__(self, request: Any, timeout: float, metadata: Metadata) -> Call:
        """A call that has not begun. The request is written now and may change afterwards. timeout: in seconds."""
        return Call(self._picker, self._request, request.SerializeToString(), timeout, metadata, self._decode)

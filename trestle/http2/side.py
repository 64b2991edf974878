"""What each side of HTTP/2 makes of a connection."""

from __future__ import annotations

from trestle.http2.hpack import Fields


class Side:
    """Is told of what comes, by the connection that it is."""

    def opening(self) -> bytes:
        """What is sent first."""
        raise NotImplementedError

    def headers(self, stream: int, flags: int, fields: Fields) -> None:
        """A header block came. Raises `ProtocolError`."""
        raise NotImplementedError

    def opened(self, stream: int) -> bool:
        """Whether there has been a stream of this number."""
        raise NotImplementedError

    def set(self, name: int, value: int) -> None:
        """One of the other side's settings, which is not the connection's own business."""

    def settled(self) -> None:
        """The other side has said how it speaks."""

    def pinged_back(self, payload: bytes) -> None:
        """The other side has answered a ping."""

    def going(self, last: int, code: int) -> None:
        """The other side takes no new streams, and has taken none after the last."""

    def crowded(self) -> None:
        """Something came, while the socket takes nothing more."""

    def idle(self) -> None:
        """The last open stream is over."""

    def gone(self) -> None:
        """The connection is no more; its streams have been told."""

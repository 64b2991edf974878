"""One stream of HTTP/2: what is sent waits here for the other side's window; what comes is handed on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from trestle.http2.frames import DATA, frame, window_update
from trestle.http2.messages import prefix_of

if TYPE_CHECKING:
    from trestle.http2.connection import Connection


class Stream:
    """id: zero until it is opened. window: bytes that the other side takes now. sending: whether something still waits
    for such room. taken: bytes that came and that the other side has not been let send anew. ended: nothing more comes.
    closed: nothing more is sent. reset_by: the code with which the other side ended it at once; -1 where it did not."""

    __slots__ = (
        "_outgoing",
        "_prefix",
        "_sent",
        "_tail",
        "_waiter",
        "closed",
        "connection",
        "ended",
        "id",
        "reset_by",
        "taken",
        "window",
    )

    def __init__(self, connection: Connection, number: int) -> None:
        self.connection = connection
        self.id = number
        self.window = connection.first_window
        self.taken = 0
        self.ended = False
        self.closed = False
        self.reset_by = -1
        self._outgoing = b""
        self._prefix = b""
        self._sent = 0
        self._tail = b""
        self._waiter: asyncio.Future[None] | None = None

    # What comes, for who makes a call of it.

    def feed(self, data: bytes, end: bool) -> None:
        """DATA came. end: nothing more does."""
        raise NotImplementedError

    def over(self) -> None:
        """Everything has been sent, the end too."""

    def lost(self) -> None:
        """The other side has given it up, or the connection is gone."""
        raise NotImplementedError

    def give_back(self) -> None:
        """The other side may send as much again as it has."""
        if self.taken and not self.ended:
            self.connection.write(window_update(self.id, self.taken))
            self.taken = 0

    # What goes.

    @property
    def sending(self) -> bool:
        return bool(self._outgoing or self._prefix)

    def fits(self, size: int) -> bool:
        """Whether so many bytes may leave now, in one frame. Then they are counted as sent."""
        connection = self.connection
        if size <= self.window and size <= connection.window and size <= connection.frame_bytes and not self.sending:
            self.window -= size
            connection.window -= size
            return True
        return False

    def queue(self, message: bytes, tail: bytes = b"") -> None:
        """Sends a gRPC message in as many frames as it needs, as soon as there is room for each. tail: frames that
        follow the last of them, and end the stream."""
        prefix = prefix_of(message)
        if self.sending:
            self._outgoing += prefix + message
        else:
            self._prefix, self._outgoing = prefix, message  # not one, which of a large message were another copy
        self._tail = tail
        self.pump()

    def pump(self) -> None:
        """Sends what waits for room, as far as there is some."""
        connection = self.connection
        outgoing, size = self._outgoing, len(self._outgoing)
        while (left := len(self._prefix) + size - self._sent) > 0:
            more = min(left, self.window, connection.window, connection.frame_bytes)
            if more <= 0:
                if self.window > 0:
                    connection.wait_for_window(self)
                return
            head, self._prefix = self._prefix[:more], self._prefix[more:]
            at = self._sent
            self._sent += more - len(head)
            self.window -= more
            connection.window -= more
            connection.write(frame(DATA, 0, self.id, head + outgoing[at : self._sent]))
        self.drop()
        if self._tail:
            connection.write(self._tail)
            self._tail = b""
            self.over()

    def drop(self) -> None:
        """What waits for room is not to be sent any more."""
        self._outgoing = self._prefix = b""
        self._sent = 0
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def flushed(self) -> None:
        """Returns once nothing waits for room any more, and the socket takes more. For one task at a time."""
        while self.sending:
            self._waiter = self.connection.loop.create_future()
            await self._waiter
        if self.connection.full:
            await self.connection.room()

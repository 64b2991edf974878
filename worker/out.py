"""Where the responses of one answer go: to the caller as they come, or together into one."""

from __future__ import annotations

from typing import Generic, TypeVar

from trestle.rpc.call import Call
from trestle.v1 import chat_pb2, completion_pb2

R = TypeVar("R", chat_pb2.ChatResponse, completion_pb2.CompleteResponse)


class Out(Generic[R]):
    """The way to the caller. last: the response that the call ends with, which travels with its status; until the
    answer has ended it is an empty one, or as much as there is of an answer that is no stream."""

    __slots__ = ("_context", "last")

    def __init__(self, last: R, context: Call | None) -> None:
        """last: an empty one. context: of the call; None: nothing is sent before the end."""
        self.last: R = last
        self._context = context

    def new(self) -> R:
        """An empty response."""
        return type(self.last)()

    def put(self, response: R) -> bool:
        """Sends it. Returns whether there is room for the next one; where there is none await `room` first."""
        context = self._context
        if context is None:
            self.last.chunks.extend(response.chunks)
            return True
        context.put(response.SerializeToString())
        return not context.blocked

    async def room(self) -> None:
        """Returns once there is room for a response."""
        if self._context is not None:
            await self._context.flushed()

    def finish(self, response: R) -> None:
        """Nothing comes after it."""
        if self.last.chunks:
            self.last.chunks.extend(response.chunks)
        else:
            self.last = response

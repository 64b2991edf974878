"""One call to one target, on its way: its limits in time, what it has said, how it ended."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.rpc.call import Call, Taker
from gateway.settings import Target
from gateway.workers import Worker
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

if TYPE_CHECKING:
    from gateway.tracing import AttemptSpan


class Attempt:
    """One call to one target. single: it has one response. began: the target has said that it answers; spoke: content
    has come, or the end. usage: what it told of before its content. error: why it failed. lost: it was given up for a
    target that spoke first. late: why our own limits ended it; empty while they have not. tries: how often the worker
    asked its upstream, as far as it has said so. span: its own, in a trace; None where there is none."""

    __slots__ = (
        "_first_token",
        "_idle",
        "_last",
        "_loop",
        "_timer",
        "began",
        "buffered",
        "call",
        "error",
        "late",
        "lost",
        "single",
        "span",
        "spoke",
        "target",
        "tries",
        "usage",
        "worker",
    )

    def __init__(
        self, target: Target, worker: Worker, call: Call, single: bool, first_token: float, idle: float
    ) -> None:
        self.target = target
        self.worker = worker
        self.call = call
        self.single = single
        self.buffered: deque[Any] = deque()
        self.began = False
        self.spoke = False
        self.lost = False
        self.usage: chat_pb2.Usage | None = None
        self.error: CallError | None = None
        self.late = ""
        self.tries = 1
        self.span: AttemptSpan | None = None
        self._first_token = first_token
        self._idle = idle
        self._timer: asyncio.TimerHandle | None = None
        if first_token or idle:
            self._loop = asyncio.get_running_loop()
            self._last = self._loop.time()
            self._timer = self._loop.call_later(first_token or idle, self._check)

    async def read(self) -> Any:
        """The next response, None at the end. Raises `CallError`."""
        if self.buffered:
            return self.buffered.popleft()
        if self.spoke and self.single:
            return None
        try:
            response = await (self.call.single() if self.single else self.call.read())
        except CallError as error:
            raise self._failed(error) from None
        if response is not None:
            self._heard(response)
        return response

    async def pass_to(self, taker: Taker) -> bool:
        """Gives the taker the responses as they come, for as long as it returns True. Returns False once it has not,
        and when the target has begun to speak; True at the end. Raises `CallError`, and what the taker raises."""
        while self.buffered:
            response = self.buffered.popleft()
            if response is not None and not taker(response):  # None is the end, which the call tells again
                return False
        try:
            simply = self.spoke and self._timer is None
            return await self.call.pass_to(taker if simply else partial(self._pass_on, taker))
        except CallError as error:
            raise self._failed(error) from None

    def _pass_on(self, taker: Taker, response: Any) -> bool:
        known = self.spoke
        self._heard(response)
        return taker(response) and known

    def _failed(self, error: CallError) -> CallError:
        self.error = CallError(Reason.UPSTREAM_TIMEOUT, self.late) if self.late else error
        self.tries = error.attempts
        return self.error

    def _heard(self, response: Any) -> None:
        """A response has come."""
        if not self.spoke:
            self.began = True
            self.spoke = self.single or self._listen(response.chunks)
            if self.spoke and self._timer is not None and 0 < self._idle < self._first_token:
                self._timer.cancel()  # it would look too late
                self._timer = self._loop.call_later(self._idle, self._check)
        if self._timer is not None and (self.spoke or not self._first_token):
            self._last = self._loop.time()

    def _listen(self, chunks: Iterable[Any]) -> bool:
        """Whether one of the chunks says something of the answer's content, or its end."""
        for chunk in chunks:
            event = chunk.WhichOneof("event")
            if event == "usage":
                self.usage = chunk.usage
            elif event != "started":
                return True
        return False

    async def speak(self) -> None:
        """Returns once it has said something of the answer's content, or its end. Raises `CallError`."""
        held: list[Any] = []
        while True:
            response = await self.read()
            held.append(response)
            if response is None or self.spoke:
                break
        self.buffered.extend(held)

    def close(self) -> None:
        """Ends the call if it still runs, and with it the upstream's."""
        if self._timer is not None:
            self._timer.cancel()
        if self.span is not None:
            self.span.end(self)
            self.span = None
        self.call.cancel()
        self.worker.release()

    def _check(self) -> None:
        limit = self._idle if self.spoke else self._first_token or self._idle
        due = self._last + limit
        if not limit:
            self._timer = None
        elif self._loop.time() < due:
            self._timer = self._loop.call_at(due, self._check)
        else:
            self.late = "The model fell silent in its answer." if self.spoke else "The model did not begin in time."
            self.call.cancel()

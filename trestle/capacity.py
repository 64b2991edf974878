"""Load is turned away early, with a time to come back, instead of being let in to collapse."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from trestle.errors import CallError, Reason


class Capacity:
    """How much somebody is asked at once: `calls` at a time, `queue` more waiting, each `patience` seconds at most.

    An asynchronous context manager around a call, or `acquire` and `release`. Raises `CallError` (OVERLOADED, with a
    time to come back) for who finds no place. name: of who is asked, for the message.
    """

    def __init__(self, name: str, calls: int, queue: int, patience: float) -> None:
        self._name = name
        self._free = calls
        self._queue = queue
        self._patience = patience
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(not place.done() for place in self._waiting)

    async def acquire(self) -> None:
        """Returns once there is a place."""
        if self._free > 0:
            self._free -= 1
            return
        if len(self._waiting) >= self._queue:
            raise self._full()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._patience):
                await place
        except BaseException as error:
            if place in self._waiting:
                self._waiting.remove(place)
            else:
                self.release()  # it was given in the very moment of giving up
            if isinstance(error, TimeoutError):
                raise self._full() from None
            raise

    def release(self) -> None:
        """Gives the place to who waits longest."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _full(self) -> CallError:
        return CallError(
            Reason.OVERLOADED,
            f"{self._name} is asked as much as it may be; try again shortly.",
            code="overloaded",
            retry_after=1.0,
        )

"""How long to wait before the next try, in seconds: a worker that comes back is found within one
(https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md)."""

from __future__ import annotations

import asyncio
import random
from typing import Final

_FIRST: Final = 0.1
LONGEST: Final = 1.0
_GROWTH: Final = 1.6
_JITTER: Final = 0.2


class Backoff:
    """Of one thing that is tried again and again."""

    __slots__ = ("_pause",)

    def __init__(self) -> None:
        self._pause = _FIRST

    def reset(self) -> None:
        """It went well."""
        self._pause = _FIRST

    async def wait(self) -> None:
        """Returns when it may be tried again, later each time."""
        pause, self._pause = self._pause, min(self._pause * _GROWTH, LONGEST)
        await asyncio.sleep(pause * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 (no secret)

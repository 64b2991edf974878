"""An upstream's own limits in time: for the whole answer, and for its first chunk."""

from __future__ import annotations

import asyncio
from types import TracebackType

from trestle.errors import CallError, Reason


class Limits:
    """An asynchronous context manager around one upstream call. timeout: seconds for the whole of it. first_token:
    seconds to the first chunk that says something; zero for either: no limit. began_at: when that came, of the loop's
    clock; zero until then. Raises `CallError` (UPSTREAM_TIMEOUT).
    """

    __slots__ = ("_first", "_seen", "_timeout", "_upstream", "_whole", "began_at")

    def __init__(self, timeout: float, first_token: float, upstream: str) -> None:
        self._whole = timeout
        self._first = first_token
        self._seen = 0
        self.began_at = 0.0
        self._upstream = upstream
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        if self._whole or self._first:
            self._timeout = asyncio.timeout(min(filter(None, (self._whole, self._first))))
            await self._timeout.__aenter__()
            now = asyncio.get_running_loop().time()
            self._whole = now + self._whole if self._whole else 0.0

    @property
    def heard(self) -> bool:
        """Whether any chunk has come."""
        return self._seen > 0

    def said(self, chunks: int) -> None:
        """So many chunks have come. The very first says only that the answer has begun."""
        self._seen += chunks
        if not self.began_at and self._seen > 1:
            self.began_at = asyncio.get_running_loop().time()
        if self._first and self._timeout is not None and self._seen > 1:
            self._first = 0.0
            self._timeout.reschedule(self._whole or None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timeout is None:
            return
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            what = "begin its answer" if self._first else "finish its answer"
            raise CallError(
                Reason.UPSTREAM_TIMEOUT, f"The upstream did not {what} in time.", upstream=self._upstream
            ) from None

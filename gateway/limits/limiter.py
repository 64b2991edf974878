"""Admits requests and settles them: in this process, or with Redis for all gateways together."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.exchange import Exchange
from gateway.identity import Identity
from gateway.limits.local import LocalLimits, periods
from gateway.limits.policy import Holder, Refusal, Standing, UnreachableError, headers
from gateway.prices import MICRO, Prices
from gateway.record import Record
from gateway.settings import LimiterSettings
from trestle.errors import CallError, Reason
from trestle.tokens import input_tokens
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2

if TYPE_CHECKING:
    from gateway.limits.shared import SharedLimits

log = logging.getLogger("gateway")
_REST: Final = 1.0
"""Seconds for which Redis is left alone when it could not be reached."""
_MOST_UNSETTLED: Final = 100_000
_COUNTED: Final = (chat_pb2.ChatRequest, completion_pb2.CompleteRequest, embedding_pb2.EmbedRequest)


class Admission(msgspec.Struct, gc=False):
    """A request that was let in. id: its lease, empty where there is none. tokens: reserved. at: Unix seconds."""

    holders: tuple[Holder, ...]
    id: str
    tokens: int
    at: float


class _Settlement(msgspec.Struct, gc=False):
    admission: Admission
    tokens: int
    cost: float


class Limiter:
    """An `Observer` too: what was admitted is settled when its record ends. accounts: who is limited besides keys, by
    the account's id. shared: None to count in this process. reachable: whether Redis could be, last."""

    def __init__(
        self,
        settings: LimiterSettings,
        accounts: Callable[[str], Holder | None],
        prices: Prices,
        shared: SharedLimits | None = None,
    ) -> None:
        self.reachable = True
        self._settings = settings
        self._accounts = accounts
        self._prices = prices
        self._local = LocalLimits()
        self._shared = shared
        self._rests_until = 0.0
        self._tried = False  # by a request, while it is not known whether Redis is there again
        self._open: dict[str, Admission] = {}
        self._unsettled: deque[_Settlement] = deque(maxlen=_MOST_UNSETTLED)
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Inside a running loop."""
        if self._shared is not None:
            self._tasks = [asyncio.create_task(self._settling()), asyncio.create_task(self._renewing())]

    async def close(self) -> None:
        """Gives back what is open, if that can be done within a moment."""
        for task in self._tasks:
            while not task.done():  # redis-py swallows a cancellation that comes together with its answer
                task.cancel()
                await asyncio.wait((task,), timeout=_REST / 10)
        if self._shared is None:
            return
        try:
            async with asyncio.timeout(_REST):
                while self._unsettled:
                    await self._settle_one()
        except (UnreachableError, TimeoutError):
            log.info("limits: %d requests are not settled", len(self._unsettled))
        await self._shared.close()

    def holders(self, identity: Identity) -> tuple[Holder, ...]:
        """Whose limits hold for a request."""
        account = self._accounts(identity.account)
        if account is None:
            return () if identity.limits is None else (identity.limits,)
        return (account,) if identity.limits is None else (identity.limits, account)

    async def admit(self, exchange: Exchange, holders: tuple[Holder, ...], request: Any) -> None:
        """Lets the request in, or raises `CallError`: RATE_LIMITED, or OVERLOADED where that cannot be known now."""
        tokens = self._estimate(holders, request)
        admission = Admission(holders, "", tokens, time.time())
        if self._shared is None:
            found = self._local.admit(holders, tokens, admission.at)
        else:
            found = await self._ask(self._shared, admission)
        if isinstance(found, Refusal):
            raise found.error()
        exchange.standing = headers(found)
        assert exchange.record is not None
        exchange.record.admission = admission

    def began(self, record: Record) -> None:
        """Nothing is known yet."""

    def ended(self, record: Record) -> None:
        """Counts what it used instead of what was reserved."""
        admission = record.admission
        if admission is None:
            return
        used = [(attempt, usage) for attempt, usage in record.uses() if usage is not None]
        tokens = sum(usage.input_tokens + usage.output_tokens for _, usage in used)
        cost = sum(self._prices.cost(attempt.target, usage) for attempt, usage in used) / MICRO
        if self._shared is None:
            self._local.settle(admission.holders, admission.tokens, tokens, cost, admission.at)
        elif admission.id:
            self._open.pop(admission.id, None)
            self._unsettled.append(_Settlement(admission, tokens, cost))
            self._news.set()

    def remember(self, spent: Mapping[str, Mapping[str, tuple[int, float]]]) -> None:
        """What holders had used before this process began: by their id, tokens and cost by period."""
        now = time.time()
        for id, of in spent.items():  # noqa: A001
            self._local.remember(id, of, now)

    def _estimate(self, holders: tuple[Holder, ...], request: Any) -> int:
        """Tokens that a request may take: what it says, and what it lets be answered."""
        if not any(
            each.limits.tokens_per_minute or each.limits.tokens_per_day or each.limits.tokens_per_month
            for each in holders
        ):
            return 0
        tokens = input_tokens(request) if isinstance(request, _COUNTED) else 0
        if isinstance(request, chat_pb2.ChatRequest | completion_pb2.CompleteRequest):
            sampling = request.sampling
            most = sampling.max_completion_tokens or sampling.max_tokens or self._settings.default_output_tokens
            tokens += most * (sampling.n or 1)
        return tokens

    async def _ask(self, shared: SharedLimits, admission: Admission) -> Any:
        if self._tried or time.monotonic() < self._rests_until:
            return self._unknown()
        tries = self._tried = not self.reachable  # one at a time; the others need not all wait to learn of it
        admission.id = os.urandom(12).hex()
        day, month = periods(admission.at)
        try:
            found = await shared.admit(
                admission.holders, admission.tokens, admission.id, admission.at, day, month
            )
        except UnreachableError as error:
            self._away(error)
            admission.id = ""
            return self._unknown()
        finally:
            if tries:
                self._tried = False
        self._there()
        if not isinstance(found, Refusal):
            self._open[admission.id] = admission
        return found

    def _unknown(self) -> list[Standing]:
        if self._settings.when_unreachable == "open":
            return []
        raise CallError(
            Reason.OVERLOADED,
            "What your key may still use cannot be known now.",
            code="limits_unavailable",
            retry_after=_REST,
        )

    async def _settling(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                while self._unsettled:
                    await self._settle_one()
            except UnreachableError as error:
                self._away(error)
                await asyncio.sleep(_REST)
                self._news.set()
            else:
                self._there()

    async def _settle_one(self) -> None:
        assert self._shared is not None
        settlement = self._unsettled[0]
        admission = settlement.admission
        await self._shared.settle(
            admission.holders,
            admission.tokens,
            settlement.tokens,
            settlement.cost,
            admission.id,
            *periods(admission.at),
        )
        self._unsettled.popleft()

    async def _renewing(self) -> None:
        assert self._shared is not None
        while True:
            await asyncio.sleep(self._shared.lease / 3)
            try:
                await self._shared.renew([(each.holders, each.id) for each in self._open.values()])
            except UnreachableError as error:
                self._away(error)

    def _away(self, error: BaseException) -> None:
        self._rests_until = time.monotonic() + _REST
        if self.reachable:
            choice = "are let in" if self._settings.when_unreachable == "open" else "are turned away"
            log.warning("limits: Redis cannot be reached (%s), requests %s", error, choice)
        self.reachable = False

    def _there(self) -> None:
        if not self.reachable:
            log.info("limits: Redis is there again")
        self.reachable = True

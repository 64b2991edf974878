"""Limits kept in this process: exact, and a few steps for each. No clock of its own; no waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.limits.policy import MINUTE, Holder, Refusal, Standing, standing

_IDLE: Final = 3600.0
_SWEEP_EVERY: Final = 60.0


class Spent:
    """What was used of one day or month. period: which."""

    __slots__ = ("cost", "period", "tokens")

    def __init__(self, period: str) -> None:
        self.period = period
        self.tokens = 0
        self.cost = 0.0

    def of(self, period: str) -> Spent:
        """This, begun anew when it is of another period."""
        if self.period != period:
            self.period, self.tokens, self.cost = period, 0, 0.0
        return self


class _Bucket:
    """A minute's worth that comes back evenly. level: what is there; it may be below zero. size: of how much; zero
    while there is no limit. at: when that was."""

    __slots__ = ("at", "level", "size")

    def __init__(self, now: float) -> None:
        self.level = 0.0
        self.size = 0.0
        self.at = now

    def fill(self, size: float, now: float) -> float:
        if size != self.size:  # what was used stays used
            self.level = self.level + size - self.size if self.size else size
            self.size = size
        # A clock that was set back gives nothing, and counts on from there.
        self.level += max(0.0, now - self.at) * size / MINUTE
        self.at = now
        self.level = min(self.level, size)
        return self.level


class _Counters:
    __slots__ = ("day", "month", "open", "requests", "tokens", "used")

    def __init__(self, now: float) -> None:
        self.requests = _Bucket(now)
        self.tokens = _Bucket(now)
        self.open = 0
        self.day = Spent("")
        self.month = Spent("")
        self.used = now


class LocalLimits:
    """Times are Unix seconds, the caller's."""

    def __init__(self) -> None:
        self._counters: dict[str, _Counters] = {}
        self._swept = 0.0

    def admit(self, holders: Sequence[Holder], tokens: int, now: float) -> Sequence[Standing] | Refusal:
        """Lets a request in that will take about so many tokens, or nothing of it."""
        day, month = periods(now)
        found = [(holder, self._of(holder, now)) for holder in holders]
        for holder, counters in found:
            refusal = _refusal(holder, counters, tokens, now, day, month)
            if refusal is not None:
                return refusal
        standings: list[Standing] = []
        for holder, counters in found:
            counters.requests.level -= 1
            counters.tokens.level -= tokens
            counters.open += 1
            counters.day.tokens += tokens
            counters.month.tokens += tokens
            standings.append(standing(holder, counters.requests.level, counters.tokens.level))
        self._sweep(now)
        return standings

    def settle(self, holders: Sequence[Holder], reserved: int, used: int, cost: float, began: float) -> None:
        """A request that was let in at `began` has ended and used that."""
        day, month = periods(began)
        for holder in holders:
            counters = self._of(holder, began)
            counters.open = max(0, counters.open - 1)
            counters.tokens.level += reserved - used
            for spent, period in ((counters.day, day), (counters.month, month)):
                if spent.period == period:
                    spent.tokens = max(0, spent.tokens + used - reserved)
                    spent.cost += cost

    def remember(self, id: str, spent: Mapping[str, tuple[int, float]], now: float) -> None:  # noqa: A002
        """Adds what a holder had used before this process began: tokens and cost by period."""
        day, month = periods(now)
        counters = self._counters.get(id)
        if counters is None:
            counters = self._counters[id] = _Counters(now)
        for kept, period in ((counters.day, day), (counters.month, month)):
            tokens, cost = spent.get(period, (0, 0.0))
            kept.of(period).tokens += tokens
            kept.cost += cost

    def _of(self, holder: Holder, now: float) -> _Counters:
        counters = self._counters.get(holder.id)
        if counters is None:
            counters = self._counters[holder.id] = _Counters(now)
        return counters

    def _sweep(self, now: float) -> None:
        """Forgets whom nothing need be remembered of."""
        if abs(now - self._swept) < _SWEEP_EVERY:
            return
        self._swept = now
        day, month = periods(now)
        for id, counters in list(self._counters.items()):  # noqa: A001
            spent = counters.day.of(day).tokens or counters.month.of(month).tokens or counters.month.cost
            if not counters.open and not spent and now - counters.used > _IDLE:
                del self._counters[id]


def periods(now: float) -> tuple[str, str]:
    """The day and the month of an instant: `2026-11-23`, `2026-11`."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    return day, day[:7]


def until_next(limit: str, now: float) -> float:
    """Seconds until a limit's day or month is over."""
    moment = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = 1 if limit.endswith("_day") else 32 - moment.day
    later = moment + timedelta(days=days)
    return (later if limit.endswith("_day") else later.replace(day=1)).timestamp() - now


def _refusal(
    holder: Holder, counters: _Counters, tokens: int, now: float, day: str, month: str
) -> Refusal | None:
    limits = holder.limits
    counters.used = now
    today, this_month = counters.day.of(day), counters.month.of(month)
    requests = counters.requests.fill(limits.requests_per_minute, now)
    left = counters.tokens.fill(limits.tokens_per_minute, now)
    if limits.requests_per_minute and requests < 1:
        return Refusal(holder, "requests_per_minute", (1 - requests) * MINUTE / limits.requests_per_minute)
    # A request larger than a minute's worth is let in when all of it is there.
    needed = min(tokens, limits.tokens_per_minute)
    if limits.tokens_per_minute and left < needed:
        return Refusal(holder, "tokens_per_minute", (needed - left) * MINUTE / limits.tokens_per_minute)
    if limits.concurrent and counters.open >= limits.concurrent:
        return Refusal(holder, "concurrent", 1.0)
    for limit, spent, most in (
        ("tokens_per_day", today.tokens, limits.tokens_per_day),
        ("tokens_per_month", this_month.tokens, limits.tokens_per_month),
        ("cost_per_day", today.cost, limits.cost_per_day),
        ("cost_per_month", this_month.cost, limits.cost_per_month),
    ):
        if most and (spent >= most or (limit.startswith("tokens") and spent and spent + tokens > most)):
            return Refusal(holder, limit, until_next(limit, now))
    return None

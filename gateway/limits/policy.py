"""Limits as they are set, asked for and told. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trestle.errors import CallError, Reason

Count = Annotated[int, Meta(ge=0, le=10**15)]
Amount = Annotated[float, Meta(ge=0, le=10**12)]
MINUTE: Final = 60.0


class UnreachableError(Exception):
    """Who keeps the limits cannot be asked."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False, omit_defaults=True):
    """What one key, or one account, may use; zero: as much as it likes. requests_per_minute, tokens_per_minute: a
    minute's worth may be used at once, and comes back evenly. concurrent: requests at a time. tokens_per_day,
    tokens_per_month, cost_per_day, cost_per_month: of days and months in UTC; cost in units of gateway.currency."""

    requests_per_minute: Count = 0
    tokens_per_minute: Count = 0
    concurrent: Count = 0
    tokens_per_day: Count = 0
    tokens_per_month: Count = 0
    cost_per_day: Amount = 0.0
    cost_per_month: Amount = 0.0

    @property
    def budgets(self) -> bool:
        """Whether any of them is for a day or a month."""
        return bool(self.tokens_per_day or self.tokens_per_month or self.cost_per_day or self.cost_per_month)


class Holder(msgspec.Struct, frozen=True, gc=False):
    """Who is limited. id: `key:ID` or `account:ID`. account: whose it is, or itself."""

    id: str
    account: str
    limits: Limits

    @property
    def what(self) -> str:
        """`key` or `account`."""
        return self.id.partition(":")[0]


class Standing(msgspec.Struct, frozen=True, gc=False):
    """How a holder stands after an admission. remaining: of a minute; reset: seconds until all of it is back."""

    holder: Holder
    remaining_requests: int
    reset_requests: float
    remaining_tokens: int
    reset_tokens: float


def standing(holder: Holder, requests: float, tokens: float) -> Standing:
    """requests, tokens: what is left of a minute's, below zero where more was used; of no matter without a limit."""
    of = holder.limits
    asks, uses = of.requests_per_minute, of.tokens_per_minute
    return Standing(
        holder,
        max(0, int(requests)) if asks else 0,
        (asks - requests) * MINUTE / asks if asks else 0.0,
        max(0, int(tokens)) if uses else 0,
        (uses - tokens) * MINUTE / uses if uses else 0.0,
    )


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """holder: whose limit it is. limit: its name. retry_after: seconds."""

    holder: Holder
    limit: str
    retry_after: float

    def error(self) -> CallError:
        """What the caller is told."""
        limit = getattr(self.holder.limits, self.limit)
        quota = self.limit.endswith(("_day", "_month"))
        words = self.limit.replace("_", " ") if self.limit != "concurrent" else "requests at a time"
        return CallError(
            Reason.RATE_LIMITED,
            f"This {'API key' if self.holder.what == 'key' else 'account'} may use {limit:g} {words}, and no more now.",
            code="insufficient_quota" if quota else "rate_limit_exceeded",
            retry_after=max(self.retry_after, 0.001),
        )


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """OpenAI's six headers; of a key and its account those of the one that has less left."""
    out: dict[str, str] = {}
    for kind in ("requests", "tokens"):
        limited = [each for each in standings if getattr(each.holder.limits, f"{kind}_per_minute")]
        if limited:
            least = min(limited, key=lambda each: getattr(each, f"remaining_{kind}"))
            out[f"x-ratelimit-limit-{kind}"] = str(getattr(least.holder.limits, f"{kind}_per_minute"))
            out[f"x-ratelimit-remaining-{kind}"] = str(getattr(least, f"remaining_{kind}"))
            out[f"x-ratelimit-reset-{kind}"] = duration(getattr(least, f"reset_{kind}"))
    return out


def duration(seconds: float) -> str:
    """As OpenAI writes one: `20ms`, `7s`, `6m0s`, `1h2m0s`."""
    if seconds < 1:
        return f"{max(0, math.ceil(seconds * 1000))}ms"
    whole = math.ceil(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if whole >= 60 else ''}{whole % 60}s"

"""`GET /v1/usage`: what an account used; `/admin/v1/usage`: what all of them did, and its erasure."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from gateway.endpoints import Endpoint
from gateway.exchange import Exchange
from gateway.openai.fields import invalid
from gateway.prices import MICRO
from gateway.reply import Reply
from gateway.store.usage import DAY_MS, GROUPS, UsageStore, Which

_OWN_GROUPS: Final = frozenset({"day", "model", "key", "user", "session", "client", "agent", "outcome"})
_FILTERS: Final = ("model", "key", "user", "session", "client", "agent", "outcome")
_LIMIT: Final = 1000
_MOST: Final = 100_000
_DEFAULT_DAYS: Final = 30
_ERASED_BY: Final = ("account", "user", "session", "client", "key")
_OTHERS: Final = frozenset({"from", "to", "group_by", "format", "limit", "offset"})


class UsageHandler:
    """currency: of the prices."""

    def __init__(self, store: UsageStore, currency: str) -> None:
        self._store = store
        self._currency = currency

    def endpoints(self) -> Sequence[Endpoint]:
        """What is served to the operator."""
        return [
            Endpoint("GET", "/admin/v1/usage", self.of_all),
            Endpoint("DELETE", "/admin/v1/usage", self.erase),
        ]

    async def own(self, exchange: Exchange) -> Reply:
        """The caller's account's, grouped as it asks."""
        query = exchange.http.query
        _known(query, {*_OTHERS, *_FILTERS})
        which = _which(query, _FILTERS, {"account": exchange.identity.account})
        return await self._answer(exchange, which, _groups(query, _OWN_GROUPS))

    async def of_all(self, exchange: Exchange) -> Reply:
        """All accounts', or some of it."""
        query = exchange.http.query
        filters = (*_FILTERS, "account", "worker", "upstream")
        _known(query, {*_OTHERS, *filters})
        which = await self._by_account(_which(query, filters, {}))
        return await self._answer(exchange, which, _groups(query, frozenset(GROUPS)))

    async def erase(self, exchange: Exchange) -> Reply:
        """Deletes what was recorded of an account, a user, a session, a client or a key, up to an instant (now)."""
        query = exchange.http.query
        _known(query, {*_ERASED_BY, "to"})
        which = _which({"from": "1970-01-01", **query}, _ERASED_BY, {})
        if not which.values:
            raise invalid("account", f"Say whose rows are to be erased: {', '.join(_ERASED_BY)}.")
        for name, value in which.values.items():
            if not value:  # a script's variable that was not set; it would mean all rows that have none
                raise invalid(name, f"Invalid value for '{name}': it is empty.")
        which = await self._by_account(which)
        return exchange.json({"object": "usage", "deleted": await self._store.forget(which)})

    async def _by_account(self, which: Which) -> Which:
        """The operator may name an account by its name too."""
        if "account" not in which.values:
            return which
        return replace(which, values={**which.values, "account": await self._store.account(which.values["account"])})

    async def _answer(self, exchange: Exchange, which: Which, groups: Sequence[str]) -> Reply:
        query = exchange.http.query
        limit = _number(query, "limit", _LIMIT, 1)
        rows = await self._store.sums(which, groups, limit + 1, _number(query, "offset", 0, 0))
        more, rows = len(rows) > limit, rows[:limit]
        for row in rows:
            row["cost"] = row["cost"] / MICRO
            if "day" in row:
                row["day"] = (date(1970, 1, 1) + timedelta(days=row["day"])).isoformat()
        if _wants_csv(exchange):
            return _csv(exchange, rows, more)
        return exchange.json(
            {
                "object": "list",
                "from": which.since // 1000,
                "to": which.until // 1000,
                "currency": self._currency,
                "data": rows,
                "has_more": more,
            }
        )


def _csv(exchange: Exchange, rows: Sequence[Mapping[str, Any]], more: bool) -> Reply:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    headers = {"x-trestle-has-more": "true" if more else "false"}
    return exchange.answer(text.getvalue().encode(), extra=headers, content_type="text/csv; charset=utf-8")


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula, quoted: some are the callers' own words."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _wants_csv(exchange: Exchange) -> bool:
    wanted = exchange.http.query.get("format", "")
    if wanted not in ("", "json", "csv"):
        raise invalid("format", "Invalid value for 'format': expected json or csv.")
    return wanted == "csv" or (not wanted and "text/csv" in exchange.http.headers.get("accept", ""))


def _known(query: Mapping[str, str], names: set[str]) -> None:
    for name in query:
        if name not in names:
            raise invalid(name, f"Unknown parameter: '{name}'.")


def _which(query: Mapping[str, str], filters: Sequence[str], fixed: Mapping[str, str]) -> Which:
    until = _instant(query, "to")
    if until is None:
        until = int(time.time() * 1000) + 1
    since = _instant(query, "from")
    if since is None:
        since = until - _DEFAULT_DAYS * DAY_MS
    return Which(since, until, {**{name: query[name] for name in filters if name in query}, **fixed})


def _instant(query: Mapping[str, str], name: str) -> int | None:
    """Unix milliseconds of a day, an ISO time or Unix seconds; days and times without a zone are UTC."""
    text = query.get(name)
    if text is None:
        return None
    if text.isdecimal() and len(text) <= 12:
        return int(text) * 1000
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(name, f"Invalid value for '{name}': expected a day, a time or Unix seconds.") from None
    return int((found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp() * 1000)


def _groups(query: Mapping[str, str], allowed: frozenset[str]) -> list[str]:
    names = [name for name in query.get("group_by", "").split(",") if name]
    for name in names:
        if name not in allowed:
            known = ", ".join(sorted(allowed))
            raise invalid("group_by", f"Invalid value for 'group_by': '{name}' is none of {known}.")
    return list(dict.fromkeys(names))


def _number(query: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or len(text) > 6 or not least <= int(text) <= _MOST:
        raise invalid(name, f"Invalid value for '{name}': expected a number from {least} to {_MOST}.")
    return int(text)

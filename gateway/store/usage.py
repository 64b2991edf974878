"""The ledger's rows in the database: written once each, summed up, forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Integer, RowMapping, and_, case, cast, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from gateway.ledger.rows import Row
from gateway.store.database import Database
from gateway.store.schema import USAGE

DAY_MS: Final = 86_400_000
GROUPS: Final[Mapping[str, Any]] = {
    "day": cast(func.floor((USAGE.c.at * 1.0) / DAY_MS), Integer),
    "account": USAGE.c.account,
    "key": USAGE.c.key,
    "model": USAGE.c.model,
    "agent": USAGE.c.agent,
    "session": USAGE.c.session,
    "client": USAGE.c.client,
    "user": USAGE.c.user,
    "outcome": USAGE.c.outcome,
    "worker": USAGE.c.worker,
    "upstream": USAGE.c.upstream,
}
"""What rows may be grouped by; `day` is the number of the day (UTC) since 1970."""
SUMS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "cost",
)
_TRANSACTION: Final = 512
"""Rows in one transaction: another writer waits no longer than for those."""
_AT_ONCE: Final = (256, 32, 4, 1)
"""Rows in one statement, of 30 values each: below both databases' most parameters; few sizes, each prepared once."""
_DELETED_AT_ONCE: Final = 1000
_WIDTH: Final = len(USAGE.c)
_ROW: Final = re.compile(r"(?<=VALUES )(\(.*\))(?= ON CONFLICT)")
_PLACE: Final = re.compile(r"\$(\d+)")
_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Which:
    """Rows from one instant (Unix milliseconds) up to another, of these values; an absent name: of any."""

    since: int
    until: int
    values: Mapping[str, str]

    def condition(self) -> ColumnElement[bool]:
        return and_(
            USAGE.c.at >= self.since,
            USAGE.c.at < self.until,
            *(USAGE.c[name] == value for name, value in self.values.items()),
        )


class UsageStore:
    """Every method raises `CallError` (OVERLOADED) while the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        dialect: Any = sqlite if database.url.get_backend_name() == "sqlite" else postgresql
        # A row that is there already is the same row: its delivery was interrupted.
        self._insert = dialect.insert(USAGE).on_conflict_do_nothing(index_elements=["id"])
        self._statements: dict[int, str] = {}

    async def add(self, rows: Sequence[Row]) -> None:
        """Each once, however often it is added."""
        for first in range(0, len(rows), _TRANSACTION):
            async with self._database.writing(_TIMEOUT) as connection:
                for some in _parts(rows[first : first + _TRANSACTION]):
                    values = tuple(chain.from_iterable(map(msgspec.structs.astuple, some)))
                    await connection.exec_driver_sql(self._statement(len(some)), values)

    def _statement(self, size: int) -> str:
        """As the driver takes it: SQLAlchemy's own handling of values costs more than all the rest of a row. All rows
        in one: SQLite's driver lets go of Python's lock for each step that it makes, and has to wait to get it back."""
        known = self._statements.get(size)
        if known is None:
            compiled = str(self._insert.compile(dialect=self._database.url.get_dialect()()))
            head, row, tail = _ROW.split(compiled, maxsplit=1)
            rows = ", ".join(_renumbered(row, at * _WIDTH) for at in range(size))
            known = self._statements[size] = f"{head}{rows}{tail}"
        return known

    async def sums(self, which: Which, groups: Sequence[str], limit: int) -> list[dict[str, Any]]:
        """By group, in the groups' order: the names of `groups`, `requests`, `failed`, `estimated` and `SUMS`."""
        keys = [GROUPS[name].label(name) for name in groups]
        counted = [
            func.count().label("requests"),
            func.sum(case((USAGE.c.outcome != "done", 1), else_=0)).label("failed"),
            func.sum(case((USAGE.c.estimated, 1), else_=0)).label("estimated"),
            *(func.sum(USAGE.c[name]).label(name) for name in SUMS),
        ]
        query = select(*keys, *counted).where(which.condition()).limit(limit)
        if keys:
            query = query.group_by(*keys).order_by(*keys)
        async with self._database.reading(_TIMEOUT) as connection:
            found = await connection.execute(query)
            return [_plain(row, groups) for row in found.mappings()]

    async def forget(self, which: Which) -> int:
        """Deletes them, some at a time; returns how many."""
        gone = 0
        while True:
            some = select(USAGE.c.id).where(which.condition()).limit(_DELETED_AT_ONCE)
            async with self._database.writing(_TIMEOUT) as connection:
                done = await connection.execute(delete(USAGE).where(USAGE.c.id.in_(some)))
            gone += done.rowcount
            if done.rowcount < _DELETED_AT_ONCE:
                return gone


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The same rows, in statements' sizes."""
    at = 0
    for size in _AT_ONCE:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


def _renumbered(row: str, done: int) -> str:
    """One row's places in a statement, after so many others; SQLite's have no numbers."""
    return _PLACE.sub(lambda place: f"${int(place[1]) + done}", row)


def _plain(row: RowMapping, groups: Sequence[str]) -> dict[str, Any]:
    return {name: value if name in groups else int(value or 0) for name, value in row.items()}

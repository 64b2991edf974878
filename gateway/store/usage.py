"""The ledger's rows in the database: written once each, summed up, forgotten."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, Integer, RowMapping, and_, case, cast, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.ledger.rows import Row
from gateway.store.database import Database, is_refusal
from gateway.store.schema import ACCOUNTS, USAGE

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
_BREATH: Final = 0.01
"""Seconds between two deletions, for who else writes."""
# Any number will do, as long as nobody else who uses the same database has it.
_FORGETTING: Final = 7_372_746_578


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

    async def add(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Each once, however often it is added. Returns those that the database will never take."""
        refused: list[Row] = []
        for first in range(0, len(rows), _TRANSACTION):
            refused += await self._add(rows[first : first + _TRANSACTION])
        return refused

    async def _add(self, rows: Sequence[Row]) -> Sequence[Row]:
        try:
            async with self._database.writing(_TIMEOUT) as connection:
                for some in _parts(rows):
                    values = tuple(chain.from_iterable(map(msgspec.structs.astuple, some)))
                    await connection.exec_driver_sql(self._statement(len(some)), values)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(rows) == 1:
                return rows
            half = len(rows) // 2
            return [*await self._add(rows[:half]), *await self._add(rows[half:])]
        return ()

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

    async def account(self, which: str) -> str:
        """The id of an account, by its id or name; as given where there is none (any more)."""
        query = select(ACCOUNTS.c.id).where(or_(ACCOUNTS.c.id == which, ACCOUNTS.c.name == which))
        async with self._database.reading() as connection:
            return (await connection.execute(query)).scalar() or which

    async def sums(self, which: Which, groups: Sequence[str], limit: int, offset: int = 0) -> list[dict[str, Any]]:
        """By group, in the groups' order, the first `offset` left out: the names of `groups`, `requests`, `failed`,
        `estimated` and `SUMS`."""
        keys = [GROUPS[name].label(name) for name in groups]
        counted = [
            func.count().label("requests"),
            func.sum(case((USAGE.c.outcome != "done", 1), else_=0)).label("failed"),
            func.sum(case((USAGE.c.estimated, 1), else_=0)).label("estimated"),
            *(func.sum(USAGE.c[name]).label(name) for name in SUMS),
        ]
        query = select(*keys, *counted).where(which.condition()).limit(limit).offset(offset)
        if keys:
            query = query.group_by(*keys).order_by(*keys)
        async with self._database.reading(_TIMEOUT) as connection:
            found = await connection.execute(query)
            return [_plain(row, groups) for row in found.mappings()]

    async def forget(self, which: Which, *, alone: bool = False) -> int:
        """Deletes them, some at a time; returns how many. alone: not while another gateway does."""
        gone = 0
        while True:
            async with self._database.writing(_TIMEOUT) as connection:
                if alone and not await self._alone(connection):
                    return gone
                some = select(USAGE.c.id, USAGE.c.at).where(which.condition()).order_by(USAGE.c.at)
                found = (await connection.execute(some.limit(_DELETED_AT_ONCE))).all()
                done = await connection.execute(delete(USAGE).where(USAGE.c.id.in_([row.id for row in found])))
            gone += done.rowcount
            if len(found) < _DELETED_AT_ONCE:
                return gone
            # On from there: what is before it has been looked at.
            which = replace(which, since=found[-1].at)
            await asyncio.sleep(_BREATH)

    async def _alone(self, connection: AsyncConnection) -> bool:
        if self._database.url.get_backend_name() == "sqlite":
            return True  # its writers wait for each other
        return bool((await connection.execute(select(func.pg_try_advisory_xact_lock(_FORGETTING)))).scalar_one())


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

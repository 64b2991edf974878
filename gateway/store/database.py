"""One database, SQLite or PostgreSQL, by its URL: connections, transactions, and its failures in our words."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import URL, delete, event, insert, make_url, update
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from gateway.store.schema import CHANGES, VERSION
from trestle.config import ConfigError
from trestle.errors import CallError, Reason
from trestle.logs import first_line

log = logging.getLogger("gateway")
KEPT_CHANGES: Final = 10_000
"""How many versions back the changes are known; who is further behind reads everything."""
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_CONNECT_TIMEOUT: Final = 3.0
_TIMEOUT: Final = 10.0
_CLOSE_TIMEOUT: Final = 3.0
_RETRY_AFTER: Final = 1.0
_IMMEDIATE: Final = "trestle_immediate"


def parse(url: str) -> URL:
    """The URL with the driver we use. Raises `ConfigError`."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("gateway.database: is not a URL, like sqlite:///trestle.db or postgresql://...") from None
    driver = _DRIVERS.get(parsed.drivername)
    if driver is None:
        raise ConfigError(f"gateway.database: {parsed.drivername} is neither sqlite nor postgresql")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("gateway.database: SQLite needs a file, like sqlite:///trestle.db")
    return parsed.set(drivername=driver)


class Database:
    """Connections to one database. Every method raises `CallError` (OVERLOADED) while it cannot be reached."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self._engine = _sqlite(url) if url.get_backend_name() == "sqlite" else _postgresql(url)
        self._immediate = self._engine.execution_options(**{_IMMEDIATE: True})

    def unusable(self, error: CallError) -> ConfigError:
        """The error to raise where nothing can be done without the database."""
        todo = "is it running, and are address, user and PGPASSWORD right?"
        if self.url.get_backend_name() == "sqlite":
            todo = "is it a database that this user may write?"
        where = self.url.set(drivername=self.url.get_backend_name()).render_as_string()
        return ConfigError(f"gateway.database: {where} cannot be used: {first_line(error.__cause__)}; {todo}")

    @asynccontextmanager
    async def reading(self, timeout: float = _TIMEOUT) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads. timeout: seconds for all of it."""
        async with _failures(timeout), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, timeout: float = _TIMEOUT) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes, committed at its end. A broken constraint is a `sqlalchemy` IntegrityError."""
        async with _failures(timeout), self._immediate.begin() as connection:
            yield connection

    @asynccontextmanager
    async def changing(self, kind: str, *refs: str) -> AsyncIterator[AsyncConnection]:
        """`writing`, as changes that every gateway hears of. Changes happen one after the other, so what is read in
        here stays so until the commit. kind, refs: as in the table `changes`."""
        async with self.writing() as connection:
            counted = update(VERSION).values(number=VERSION.c.number + len(refs)).returning(VERSION.c.number)
            version = (await connection.execute(counted)).scalar_one()
            changes = [{"version": version - i, "kind": kind, "ref": ref} for i, ref in enumerate(refs)]
            await connection.execute(insert(CHANGES), changes)
            await connection.execute(delete(CHANGES).where(CHANGES.c.version <= version - KEPT_CHANGES))
            yield connection

    async def close(self) -> None:
        """Ends the connections; a server that no longer answers is not waited for."""
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._engine.dispose()
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.info("the database's connections were cut: %s", str(error) or type(error).__name__)


def is_refusal(error: BaseException) -> bool:
    """Whether a statement failed for the values that it was given, and would do so again; nothing is wrong with the
    database then. error: what a transaction of `Database` raised."""
    cause = error.__cause__ if isinstance(error, CallError) else error
    if isinstance(cause, (IntegrityError, OverflowError, UnicodeError)):
        return True
    # SQLSTATE's class 22, "data exception": PostgreSQL's driver has no exception of its own for it.
    state = getattr(getattr(cause, "orig", None), "sqlstate", None)
    return isinstance(state, str) and state.startswith("22")


def now() -> int:
    """This instant, in Unix seconds."""
    return int(time.time())


@asynccontextmanager
async def _failures(timeout: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout):
            yield
    except IntegrityError:
        raise
    except (SQLAlchemyError, OSError, TimeoutError, OverflowError, UnicodeError) as error:
        log.debug("the database failed: %s", first_line(error))
        if is_refusal(error):
            said = "The request says something that the database cannot hold."
            raise CallError(Reason.INVALID_REQUEST, said, code="invalid_value") from error
        raise CallError(
            Reason.OVERLOADED,
            "The database cannot be reached.",
            code="database_unavailable",
            retry_after=_RETRY_AFTER,
        ) from error


def _postgresql(url: URL) -> AsyncEngine:
    return create_async_engine(
        url,
        pool_pre_ping=True,
        pool_timeout=_CONNECT_TIMEOUT,
        connect_args={"timeout": _CONNECT_TIMEOUT},
        hide_parameters=True,
    )


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_timeout=_CONNECT_TIMEOUT, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def connected(connection: Any, record: object) -> None:
        # Transactions are begun by the next function, for SQLite's driver would begin them late and never for DDL.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("busy_timeout = 5000", "foreign_keys = ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Any) -> None:
        immediate = connection.get_execution_options().get(_IMMEDIATE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine

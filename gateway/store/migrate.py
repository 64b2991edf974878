"""Brings the tables up to date, one gateway at a time however many start at once."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from gateway.store.database import Database
from trestle.config import ConfigError
from trestle.errors import CallError

# Any number will do, as long as nobody else who uses the same database has it.
_LOCK: Final = 7_372_746_577
# A start may wait for others that migrate, and a migration may take its time.
_PATIENCE: Final = 600.0


async def migrate(database: Database) -> None:
    """Raises `ConfigError` for a database that cannot be reached, or that a later version has made its own."""
    try:
        if database.url.get_backend_name() == "sqlite":
            async with _locked(Path(database.url.database or "")):
                await _to_wal(database)
                async with database.writing(_PATIENCE) as connection:
                    await connection.run_sync(_upgrade)
        else:
            async with database.writing(_PATIENCE) as connection:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                await connection.run_sync(_upgrade)
    except CommandError as error:
        raise ConfigError(f"gateway.database: cannot be migrated: {error}") from None
    except CallError as error:
        raise database.unusable(error) from None


async def is_up_to_date(database: Database) -> bool:
    """Whether its tables are those of this version. Raises `CallError` while it cannot be reached."""

    def current(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with database.reading() as connection:
        return await connection.run_sync(current) == ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    # The interpolation of a configuration file would take a % of the path for its own.
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    return config


async def _to_wal(database: Database) -> None:
    """Readers beside one writer. The file remembers it; several who try it at once would find it locked."""
    async with database.reading() as connection:
        await connection.exec_driver_sql("COMMIT")  # not within a transaction
        await connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        await connection.exec_driver_sql("BEGIN")


@asynccontextmanager
async def _locked(file: Path) -> AsyncIterator[None]:
    """Holds `FILE.lock`. Not the file itself: to close it here would drop SQLite's own locks on it."""
    try:
        lock = os.open(f"{file}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ConfigError(f"gateway.database: {file}: {error.strerror}") from None
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)

"""Accounts, where a database is configured: its parts put together. Imported only then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.directory import Directory
from gateway.ledger.ledger import Ledger
from gateway.limits.local import periods
from gateway.prices import MICRO, Prices
from gateway.settings import GatewaySettings
from gateway.store.accounts import AccountStore
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.names import NameStore
from gateway.store.reader import StoreReader
from gateway.store.usage import UsageStore, Which
from trestle.config import ConfigError
from trestle.errors import CallError

_MOST_HOLDERS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Accounts:
    """directory: what is known in memory, loaded. accounts, names: what is written, to the database. usage: the
    ledger's rows there; ledger: how they come there."""

    directory: Directory
    accounts: AccountStore
    names: NameStore
    usage: UsageStore
    ledger: Ledger
    _database: Database

    @classmethod
    async def open(cls, settings: GatewaySettings) -> Accounts:
        """Brings the database up to date and reads it. Raises `ConfigError` where that cannot be."""
        database = Database(parse(settings.database))
        try:
            await migrate(database)
            directory = Directory(StoreReader(database), settings.directory)
            try:
                await directory.load()
            except CallError as error:
                raise database.unusable(error) from None
            usage = UsageStore(database)
            folder = outbox_folder(settings, database)
            try:
                ledger = Ledger.open(usage, folder, settings.ledger, Prices(settings.prices))
            except OSError as error:
                raise ConfigError(f"gateway.ledger.outbox: {folder}: {error.strerror}") from None
        except BaseException:
            await database.close()
            raise
        return cls(
            directory,
            AccountStore(database),
            NameStore(database, settings.directory.own_names),
            usage,
            ledger,
            database,
        )

    async def spent(self) -> dict[str, dict[str, tuple[int, float]]]:
        """What keys and accounts have used of this day and month: by `key:ID` and `account:ID`, tokens and cost by
        period. Raises `ConfigError` where it cannot be known."""
        now = time.time()
        found: dict[str, dict[str, tuple[int, float]]] = {}
        for period in periods(now):
            first = datetime.fromisoformat(period if len(period) > len("2026-11") else f"{period}-01")
            which = Which(int(first.replace(tzinfo=UTC).timestamp() * 1000), int(now * 1000) + 1, {})
            for what in ("key", "account"):
                try:
                    rows = await self.usage.sums(which, [what], _MOST_HOLDERS)
                except CallError as error:
                    raise self._database.unusable(error) from None
                for row in rows:
                    tokens = row["input_tokens"] + row["output_tokens"]
                    found.setdefault(f"{what}:{row[what]}", {})[period] = tokens, row["cost"] / MICRO
        return found

    async def close(self) -> None:
        """Delivers what is recorded and ends the connections."""
        await self.ledger.close()
        await self._database.close()


def outbox_folder(settings: GatewaySettings, database: Database) -> Path:
    """Where rows of the ledger wait for the database."""
    if settings.ledger.outbox:
        return Path(settings.ledger.outbox)
    file = database.url.database if database.url.get_backend_name() == "sqlite" else None
    return Path(f"{file or 'trestle'}.outbox")

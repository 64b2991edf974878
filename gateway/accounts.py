"""Accounts, where a database is configured: its parts put together. Imported only then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gateway.directory import Directory
from gateway.ledger.ledger import Ledger
from gateway.prices import Prices
from gateway.settings import GatewaySettings
from gateway.store.accounts import AccountStore
from gateway.store.database import Database, parse
from gateway.store.migrate import migrate
from gateway.store.names import NameStore
from gateway.store.reader import StoreReader
from gateway.store.usage import UsageStore
from trestle.config import ConfigError
from trestle.errors import CallError


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
                raise ConfigError(f"gateway.database: cannot be used: {error.__cause__}") from None
            usage = UsageStore(database)
            folder = _outbox(settings, database)
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

    async def close(self) -> None:
        """Delivers what is recorded and ends the connections."""
        await self.ledger.close()
        await self._database.close()


def _outbox(settings: GatewaySettings, database: Database) -> Path:
    if settings.ledger.outbox:
        return Path(settings.ledger.outbox)
    file = database.url.database if database.url.get_backend_name() == "sqlite" else None
    return Path(f"{file or 'trestle'}.outbox")

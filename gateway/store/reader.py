"""What the directory asks the database for: everything, what changed since, one key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.accounts import account_of, key_of
from gateway.store.database import KEPT_CHANGES, Database
from gateway.store.names import agent_of, credential_of, model_of
from gateway.store.records import Account, Delta, Key, Names, OwnAgent, OwnCredential, OwnModel
from gateway.store.schema import ACCOUNTS, AGENTS, CHANGES, CREDENTIALS, KEYS, MODELS, VERSION

_WHOLE_TIMEOUT: Final = 120.0
_LOOKUP_TIMEOUT: Final = 2.0
# So many values stand in one query; SQLite's own limit is higher.
_AT_ONCE: Final = 500


class StoreReader:
    """Every method raises `CallError` (OVERLOADED) while the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def everything(self) -> Delta:
        """All that there is."""
        async with self._database.reading(_WHOLE_TIMEOUT) as connection:
            # The version first: what is read after it is at least as new, and a change that is heard of twice is the
            # same change.
            version = await _version(connection)
            return Delta(
                version=version,
                whole=True,
                accounts=await _accounts(connection),
                keys=await _keys(connection),
                names=await _names(connection),
            )

    async def since(self, version: int) -> Delta | None:
        """What changed after the version; None where nothing did. All that there is, where that is not known."""
        async with self._database.reading() as connection:
            newest = await _version(connection)
            if newest == version:
                return None
            if version <= newest <= version + KEPT_CHANGES:
                query = select(CHANGES.c.kind, CHANGES.c.ref).where(CHANGES.c.version > version)
                refs: dict[str, set[str]] = defaultdict(set)
                for row in await connection.execute(query):
                    refs[row.kind].add(row.ref)
                keys = [key for some in _pieces(refs["key"]) for key in await _keys(connection, KEYS.c.id.in_(some))]
                names: dict[str, Names] = {account: Names() for account in refs["names"]}
                for some in _pieces(refs["names"]):
                    names.update(await _names(connection, some))
                return Delta(
                    version=newest,
                    whole=False,
                    accounts=[
                        account
                        for some in _pieces(refs["account"])
                        for account in await _accounts(connection, ACCOUNTS.c.id.in_(some))
                    ],
                    keys=keys,
                    names=names,
                    gone=refs["key"] - {key.id for key in keys},
                )
        return await self.everything()

    async def key(self, digest: bytes) -> tuple[Key, Account] | None:
        """The key with this digest and whose it is."""
        async with self._database.reading(_LOOKUP_TIMEOUT) as connection:
            keys = await _keys(connection, KEYS.c.digest == digest)
            if not keys:
                return None
            (account,) = await _accounts(connection, ACCOUNTS.c.id == keys[0].account)
            return keys[0], account


async def _version(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(VERSION.c.number))).scalar_one())


async def _accounts(connection: AsyncConnection, *which: ColumnElement[bool]) -> list[Account]:
    return [account_of(row) for row in await connection.execute(select(ACCOUNTS).where(*which))]


async def _keys(connection: AsyncConnection, *which: ColumnElement[bool]) -> list[Key]:
    return [key_of(row) for row in await connection.execute(select(KEYS).where(*which))]


async def _names(connection: AsyncConnection, accounts: list[str] | None = None) -> dict[str, Names]:
    """By account, each in the order in which it was added. accounts: None for all."""
    models: dict[str, list[OwnModel]] = defaultdict(list)
    agents: dict[str, list[OwnAgent]] = defaultdict(list)
    credentials: dict[str, list[OwnCredential]] = defaultdict(list)
    queries: tuple[Any, ...] = tuple(
        select(table).order_by(table.c.created, table.c.name)
        if accounts is None
        else select(table).where(table.c.account.in_(accounts)).order_by(table.c.created, table.c.name)
        for table in (MODELS, AGENTS, CREDENTIALS)
    )
    for row in await connection.execute(queries[0]):
        models[row.account].append(model_of(row))
    for row in await connection.execute(queries[1]):
        agents[row.account].append(agent_of(row))
    for row in await connection.execute(queries[2]):
        credentials[row.account].append(credential_of(row))
    return {
        account: Names(models.get(account, ()), agents.get(account, ()), credentials.get(account, ()))
        for account in models.keys() | agents.keys() | credentials.keys()
    }


def _pieces(refs: Iterable[str]) -> Iterable[list[str]]:
    ordered = sorted(refs)
    return (ordered[at : at + _AT_ONCE] for at in range(0, len(ordered), _AT_ONCE))

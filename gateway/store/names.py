"""The models and agents of accounts in the database: one namespace for each account."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Table, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.openai.errors import conflict, not_found
from gateway.store.database import Database, now
from gateway.store.records import OwnAgent, OwnCredential, OwnModel
from gateway.store.schema import AGENTS, CREDENTIALS, MODELS

_WORDS: Final = {"models": "model", "agents": "agent", "credentials": "credential"}


class NameStore:
    """Every method raises `CallError`: OVERLOADED while the database cannot be reached, 404 for what is not there, 409
    for a name that is taken or an account that is full. most: how many models, and how many agents, an account may
    have."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most

    async def add_model(
        self,
        account: str,
        name: str,
        *,
        worker: str,
        upstream: str,
        model: str,
        defaults: bytes,
        credential: str = "",
    ) -> OwnModel:
        """A model of the account; the rest as in `OwnModel`. Raises `CallError` (404) for a credential that is not
        there for this worker and upstream."""
        async with self._database.changing("names", account) as connection:
            await self._demand_room(connection, MODELS, account, name)
            if credential:
                kept = await _row(connection, CREDENTIALS, account, credential)
                if (kept.worker, kept.upstream) != (worker, upstream):
                    other = f"{kept.worker}/{kept.upstream}"
                    raise conflict("credential", f"The credential '{credential}' is for {other}.")
            values = {"worker": worker, "upstream": upstream, "model": model, "defaults": defaults.decode()}
            values["credential"] = credential
            row = {"account": account, "name": name, "created": now(), **values}
            await connection.execute(insert(MODELS).values(row))
            return model_of(await _row(connection, MODELS, account, name))

    async def remove_model(self, account: str, name: str) -> None:
        await self._remove(MODELS, "model", account, name)

    async def add_credential(self, credential: OwnCredential) -> None:
        """A credential of the account."""
        async with self._database.changing("names", credential.account) as connection:
            known = select(CREDENTIALS.c.name).where(CREDENTIALS.c.account == credential.account)
            names = set((await connection.execute(known)).scalars())
            if credential.name in names:
                raise conflict("name", f"There is a credential '{credential.name}' already.")
            if len(names) >= self._most:
                raise conflict(None, f"An account may have {self._most} of these, and has them.")
            await connection.execute(insert(CREDENTIALS).values(msgspec.structs.asdict(credential)))

    async def remove_credential(self, account: str, name: str) -> None:
        """Raises `CallError` (409) while a model uses it."""
        async with self._database.changing("names", account) as connection:
            using = select(MODELS.c.name).where(MODELS.c.account == account, MODELS.c.credential == name)
            model = (await connection.execute(using)).scalars().first()
            if model is not None:
                raise conflict("name", f"The model '{model}' uses this credential.")
            found = (CREDENTIALS.c.account == account) & (CREDENTIALS.c.name == name)
            if (await connection.execute(delete(CREDENTIALS).where(found))).rowcount == 0:
                raise not_found("credential", name)

    async def add_agent(self, account: str, name: str, definition: bytes) -> OwnAgent:
        """An agent of the account."""
        async with self._database.changing("names", account) as connection:
            await self._demand_room(connection, AGENTS, account, name)
            row = {"account": account, "name": name, "definition": definition.decode(), "created": now()}
            await connection.execute(insert(AGENTS).values(row))
            return agent_of(await _row(connection, AGENTS, account, name))

    async def change_agent(self, account: str, name: str, change: Callable[[bytes], bytes]) -> OwnAgent:
        """change: the old definition to the new one; nobody else changes it meanwhile."""
        async with self._database.changing("names", account) as connection:
            row = await _row(connection, AGENTS, account, name)
            found = (AGENTS.c.account == account) & (AGENTS.c.name == name)
            new = change(row.definition.encode()).decode()
            await connection.execute(update(AGENTS).where(found).values(definition=new))
            return agent_of(await _row(connection, AGENTS, account, name))

    async def remove_agent(self, account: str, name: str) -> None:
        await self._remove(AGENTS, "agent", account, name)

    async def _remove(self, table: Table, what: str, account: str, name: str) -> None:
        async with self._database.changing("names", account) as connection:
            found = (table.c.account == account) & (table.c.name == name)
            if (await connection.execute(delete(table).where(found))).rowcount == 0:
                raise not_found(what, name)

    async def _demand_room(self, connection: AsyncConnection, table: Table, account: str, name: str) -> None:
        for each, what in ((MODELS, "a model"), (AGENTS, "an agent")):
            names = set((await connection.execute(select(each.c.name).where(each.c.account == account))).scalars())
            if name in names:
                raise conflict("name", f"There is {what} '{name}' already.")
            if each is table and len(names) >= self._most:
                raise conflict(None, f"An account may have {self._most} of these, and has them.")


def model_of(row: Row[Any]) -> OwnModel:
    """A row of the table `models`."""
    return OwnModel(
        account=row.account,
        name=row.name,
        worker=row.worker,
        upstream=row.upstream,
        model=row.model,
        defaults=row.defaults.encode(),
        created=row.created,
        credential=row.credential,
    )


def credential_of(row: Row[Any]) -> OwnCredential:
    """A row of the table `credentials`."""
    return OwnCredential(
        account=row.account,
        name=row.name,
        worker=row.worker,
        upstream=row.upstream,
        sealed=row.sealed,
        pair=row.pair,
        hint=row.hint,
        created=row.created,
    )


def agent_of(row: Row[Any]) -> OwnAgent:
    """A row of the table `agents`."""
    return OwnAgent(account=row.account, name=row.name, definition=row.definition.encode(), created=row.created)


async def _row(connection: AsyncConnection, table: Table, account: str, name: str) -> Row[Any]:
    query = select(table).where(table.c.account == account, table.c.name == name)
    row = (await connection.execute(query)).first()
    if row is None:
        raise not_found(_WORDS[table.name], name)
    return row

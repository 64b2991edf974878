"""Accounts and their keys in the database."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from sqlalchemy import Row, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.auth import NewKey
from gateway.limits.policy import Limits
from gateway.openai.errors import conflict, not_found
from gateway.store.database import Database, now
from gateway.store.records import Account, Key
from gateway.store.schema import ACCOUNTS, KEYS

NO_LIMITS: Final = Limits()
_LIMITS: Final = msgspec.json.Decoder(Limits)


class AccountStore:
    """Every method raises `CallError`: OVERLOADED while the database cannot be reached, 404 for what is not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str) -> Account:
        """A new account. Raises `CallError` (409) for a name that is taken."""
        account = Account(id=f"acct_{secrets.token_hex(12)}", name=name, disabled=False, created=now())
        async with self._database.changing("account", account.id) as connection:
            taken = await connection.execute(select(ACCOUNTS.c.id).where(ACCOUNTS.c.name == name))
            if taken.first() is not None:
                raise conflict("name", f"There is an account '{name}' already.")
            values = {**msgspec.structs.asdict(account), "limits": _json(account.limits)}
            await connection.execute(insert(ACCOUNTS).values(values))
        return account

    async def list(self, after: str, limit: int) -> Sequence[Account]:
        """At most `limit` accounts in the order of their names, those after the name `after`."""
        query = select(ACCOUNTS).where(ACCOUNTS.c.name > after).order_by(ACCOUNTS.c.name).limit(limit)
        async with self._database.reading() as connection:
            return [account_of(row) for row in await connection.execute(query)]

    async def get(self, which: str) -> Account:
        """By id or name."""
        async with self._database.reading() as connection:
            return await _account(connection, which)

    async def set_disabled(self, which: str, disabled: bool) -> Account:
        """Closes or opens all that the account's keys open."""
        account = await self.get(which)
        async with self._database.changing("account", account.id) as connection:
            await connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == account.id).values(disabled=disabled))
            return await _account(connection, account.id)

    async def limit(self, which: str, limits: Limits) -> Account:
        """Sets what all the account's keys may use together."""
        account = await self.get(which)
        async with self._database.changing("account", account.id) as connection:
            values = {"limits": _json(limits)}
            await connection.execute(update(ACCOUNTS).where(ACCOUNTS.c.id == account.id).values(values))
            return await _account(connection, account.id)

    async def limit_key(self, id: str, limits: Limits) -> Key:  # noqa: A002
        """Sets what the key may use."""
        return await self._change_key(id, limits=_json(limits))

    async def create_key(
        self,
        which: str,
        new: NewKey,
        *,
        name: str,
        scopes: Iterable[str],
        models: Sequence[str] | None,
        lasts: int | None = None,
        limits: Limits = NO_LIMITS,
    ) -> Key:
        """A key of the account `which`. lasts: seconds until it expires; None: it never does. The rest as in `Key`."""
        account = await self.get(which)
        instant = now()
        key = Key(
            id=new.id,
            account=account.id,
            name=name,
            digest=new.digest,
            scopes=sorted(scopes),
            models=None if models is None else list(models),
            disabled=False,
            expires=0 if lasts is None else instant + lasts,
            created=instant,
            limits=limits,
        )
        async with self._database.changing("key", key.id) as connection:
            await _insert_key(connection, key)
        return key

    async def keys(self, which: str, after: str, limit: int) -> Sequence[Key]:
        """At most `limit` keys of an account in the order of their ids, those after the id `after`."""
        query = select(KEYS).where(KEYS.c.id > after).order_by(KEYS.c.id).limit(limit)
        async with self._database.reading() as connection:
            account = await _account(connection, which)
            return [key_of(row) for row in await connection.execute(query.where(KEYS.c.account == account.id))]

    async def key(self, id: str) -> Key:  # noqa: A002
        async with self._database.reading() as connection:
            return await _key(connection, id)

    async def set_key_disabled(self, id: str, disabled: bool) -> Key:  # noqa: A002
        return await self._change_key(id, disabled=disabled)

    async def expire_key(self, id: str, expires: int) -> Key:  # noqa: A002
        """expires: the instant, zero for never."""
        return await self._change_key(id, expires=expires)

    async def rotate_key(self, id: str, new: NewKey, overlap: int) -> tuple[Key, Key]:  # noqa: A002
        """The key and the one that takes its place, with the same rights. overlap: seconds for which the old one goes
        on, unless its own end comes first. Raises `CallError` (409) for a key that opens nothing any more."""
        instant = now()
        async with self._database.changing("key", id, new.id) as connection:
            old = await _key(connection, id)
            if old.disabled or (old.expires and old.expires <= instant):
                raise conflict(None, f"The key {id} is disabled or has expired.")
            end = min(old.expires, instant + overlap) if old.expires else instant + overlap
            await connection.execute(update(KEYS).where(KEYS.c.id == id).values(expires=end))
            replacement = msgspec.structs.replace(old, id=new.id, digest=new.digest, created=instant)
            await _insert_key(connection, replacement)
        return msgspec.structs.replace(old, expires=end), replacement

    async def _change_key(self, id: str, **values: Any) -> Key:  # noqa: A002
        async with self._database.changing("key", id) as connection:
            await _key(connection, id)
            await connection.execute(update(KEYS).where(KEYS.c.id == id).values(values))
            return await _key(connection, id)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def account_of(row: Row[Any]) -> Account:
    """A row of the table `accounts`."""
    limits = _LIMITS.decode(row.limits)
    return Account(id=row.id, name=row.name, disabled=row.disabled, created=row.created, limits=limits)


def key_of(row: Row[Any]) -> Key:
    """A row of the table `keys`."""
    return Key(
        id=row.id,
        account=row.account,
        name=row.name,
        digest=row.digest,
        scopes=msgspec.json.decode(row.scopes),
        models=msgspec.json.decode(row.models),
        disabled=row.disabled,
        expires=row.expires,
        created=row.created,
        limits=_LIMITS.decode(row.limits),
    )


async def _account(connection: AsyncConnection, which: str) -> Account:
    query = select(ACCOUNTS).where(or_(ACCOUNTS.c.id == which, ACCOUNTS.c.name == which))
    row = (await connection.execute(query)).first()
    if row is None:
        raise not_found("account", which)
    return account_of(row)


async def _key(connection: AsyncConnection, id: str) -> Key:  # noqa: A002
    row = (await connection.execute(select(KEYS).where(KEYS.c.id == id))).first()
    if row is None:
        raise not_found("key", id)
    return key_of(row)


async def _insert_key(connection: AsyncConnection, key: Key) -> None:
    values = msgspec.structs.asdict(key)
    for name in ("scopes", "models", "limits"):
        values[name] = _json(values[name])
    await connection.execute(insert(KEYS).values(values))

"""`/admin/v1`: accounts and their keys, for the operator. Served where its own listener is, and nowhere else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from gateway.auth import new_key
from gateway.directory import Directory
from gateway.endpoints import Endpoint
from gateway.exchange import Exchange
from gateway.handlers.base import read_body
from gateway.identity import DEFAULT_ACCOUNT
from gateway.limits.policy import Limits
from gateway.openai.fields import decode_body, invalid
from gateway.reply import Reply
from gateway.store.accounts import AccountStore
from gateway.store.records import Account, Key

_MAX_BODY_BYTES: Final = 1024 * 1024
_MOST_LISTED: Final = 1000
_LISTED: Final = 100
_AccountName = Annotated[str, Meta(pattern=r"^(?!acct_)[a-z0-9][a-z0-9._-]{0,62}$")]
_KeyName = Annotated[str, Meta(min_length=1, max_length=128)]
_Model = Annotated[str, Meta(min_length=1, max_length=128)]
_MOST_SECONDS: Final = 10 * 366 * 86400
_Duration = Annotated[int, Meta(ge=0, le=_MOST_SECONDS)]


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    """name: small letters, digits, `.`, `_`, `-`."""

    name: _AccountName


class NewKeyBody(msgspec.Struct, forbid_unknown_fields=True):
    """scopes, models: as in `gateway.identity.Identity`. expires_in: seconds from now; absent: never.
    limits: what it may use; absent: as much as it likes."""

    name: _KeyName
    scopes: Annotated[tuple[Literal["chat", "embeddings", "manage"], ...], Meta(min_length=1)] = ("chat", "embeddings")
    models: list[_Model] | None = None
    expires_in: Annotated[int, Meta(ge=1, le=_MOST_SECONDS)] | None = None
    limits: Limits = Limits()


class Rotation(msgspec.Struct, forbid_unknown_fields=True):
    """overlap: seconds for which the old key goes on."""

    overlap: _Duration = 3600


class Expiry(msgspec.Struct, forbid_unknown_fields=True, rename={"within": "in"}):
    """in: seconds from now."""

    within: _Duration = 0


_NEW_ACCOUNT: Final = msgspec.json.Decoder(NewAccount)
_NEW_KEY: Final = msgspec.json.Decoder(NewKeyBody)
_LIMITS: Final = msgspec.json.Decoder(Limits)
_ROTATION: Final = msgspec.json.Decoder(Rotation)
_EXPIRY: Final = msgspec.json.Decoder(Expiry)


class AccountsHandler:
    """What is written is known to this gateway before it answers, to others soon after."""

    def __init__(self, store: AccountStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    def endpoints(self) -> Sequence[Endpoint]:
        """What is served."""
        account, key = "/admin/v1/accounts/{account}", "/admin/v1/keys/{key}"
        return [
            Endpoint("POST", "/admin/v1/accounts", self.create),
            Endpoint("GET", "/admin/v1/accounts", self.list),
            Endpoint("GET", account, self.get),
            Endpoint("POST", account + "/disable", self.disable),
            Endpoint("POST", account + "/enable", self.enable),
            Endpoint("PUT", account + "/limits", self.limit),
            Endpoint("POST", account + "/keys", self.create_key),
            Endpoint("GET", account + "/keys", self.list_keys),
            Endpoint("GET", key, self.get_key),
            Endpoint("PUT", key + "/limits", self.limit_key),
            Endpoint("POST", key + "/disable", self.disable_key),
            Endpoint("POST", key + "/enable", self.enable_key),
            Endpoint("POST", key + "/expire", self.expire_key),
            Endpoint("POST", key + "/rotate", self.rotate_key),
        ]

    async def create(self, exchange: Exchange) -> Reply:
        asked: NewAccount = decode_body(_NEW_ACCOUNT, await _body(exchange))
        return await self._changed(exchange, _account(await self._store.create(asked.name)))

    async def list(self, exchange: Exchange) -> Reply:
        after, limit = _page(exchange.http.query)
        return _list(exchange, [_account(each) for each in await self._store.list(after, limit + 1)], limit)

    async def get(self, exchange: Exchange) -> Reply:
        return exchange.json(_account(await self._store.get(_named(exchange, "account"))))

    async def disable(self, exchange: Exchange) -> Reply:
        name = _named(exchange, "account")
        if name == DEFAULT_ACCOUNT:
            raise invalid("account", "The account 'default' is the configuration file's: take its keys out there.")
        return await self._changed(exchange, _account(await self._store.set_disabled(name, True)))

    async def enable(self, exchange: Exchange) -> Reply:
        account = await self._store.set_disabled(_named(exchange, "account"), False)
        return await self._changed(exchange, _account(account))

    async def limit(self, exchange: Exchange) -> Reply:
        """All of them anew: what is absent is no longer limited."""
        asked: Limits = decode_body(_LIMITS, await _body(exchange))
        return await self._changed(exchange, _account(await self._store.limit(_named(exchange, "account"), asked)))

    async def limit_key(self, exchange: Exchange) -> Reply:
        """As `limit`."""
        asked: Limits = decode_body(_LIMITS, await _body(exchange))
        return await self._changed(exchange, _key(await self._store.limit_key(_named(exchange, "key"), asked)))

    async def create_key(self, exchange: Exchange) -> Reply:
        """The only answer that holds the key itself."""
        asked: NewKeyBody = decode_body(_NEW_KEY, await _body(exchange))
        new = new_key()
        key = await self._store.create_key(
            _named(exchange, "account"),
            new,
            name=asked.name,
            scopes=set(asked.scopes),
            models=asked.models,
            lasts=asked.expires_in,
            limits=asked.limits,
        )
        return await self._changed(exchange, {**_key(key), "key": new.text})

    async def list_keys(self, exchange: Exchange) -> Reply:
        after, limit = _page(exchange.http.query)
        keys = await self._store.keys(_named(exchange, "account"), after, limit + 1)
        return _list(exchange, [_key(each) for each in keys], limit)

    async def get_key(self, exchange: Exchange) -> Reply:
        return exchange.json(_key(await self._store.key(_named(exchange, "key"))))

    async def disable_key(self, exchange: Exchange) -> Reply:
        key = await self._store.set_key_disabled(_named(exchange, "key"), True)
        return await self._changed(exchange, _key(key))

    async def enable_key(self, exchange: Exchange) -> Reply:
        key = await self._store.set_key_disabled(_named(exchange, "key"), False)
        return await self._changed(exchange, _key(key))

    async def expire_key(self, exchange: Exchange) -> Reply:
        asked: Expiry = decode_body(_EXPIRY, await _body(exchange) or b"{}")
        key = await self._store.expire_key(_named(exchange, "key"), int(time.time()) + asked.within)
        return await self._changed(exchange, _key(key))

    async def rotate_key(self, exchange: Exchange) -> Reply:
        """A key with the same rights, shown once, and the old one with its end."""
        asked: Rotation = decode_body(_ROTATION, await _body(exchange) or b"{}")
        new = new_key()
        old, key = await self._store.rotate_key(_named(exchange, "key"), new, asked.overlap)
        return await self._changed(exchange, {**_key(key), "key": new.text, "replaces": _key(old)})

    async def _changed(self, exchange: Exchange, answer: object) -> Reply:
        await self._directory.catch_up()
        return exchange.json(answer)


async def _body(exchange: Exchange) -> bytes:
    return await read_body(exchange, _MAX_BODY_BYTES)


def _named(exchange: Exchange, what: str) -> str:
    return exchange.named[what]


def _page(query: Mapping[str, str]) -> tuple[str, int]:
    text = query.get("limit", str(_LISTED))
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= _MOST_LISTED:
        raise invalid("limit", f"Invalid value for 'limit': expected a number from 1 to {_MOST_LISTED}.")
    return query.get("after", ""), int(text)


def _list(exchange: Exchange, found: Sequence[Mapping[str, Any]], limit: int) -> Reply:
    """found: one more than the limit where there are more."""
    return exchange.json({"object": "list", "data": found[:limit], "has_more": len(found) > limit})


def _account(account: Account) -> dict[str, Any]:
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "disabled": account.disabled,
        "limits": account.limits,
        "created": account.created,
    }


def _key(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "object": "key",
        "account": key.account,
        "name": key.name,
        "scopes": key.scopes,
        "models": key.models,
        "limits": key.limits,
        "disabled": key.disabled,
        "expires": key.expires or None,
        "created": key.created,
    }

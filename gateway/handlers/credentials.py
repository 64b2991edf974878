"""`/v1/credentials`: what the caller's account shows upstreams instead of the operator's. A secret is sealed as it
arrives; nothing here keeps, logs or answers it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from gateway.directory import Directory
from gateway.exchange import Exchange
from gateway.handlers.base import read_body
from gateway.handlers.models import MAX_BODY_BYTES
from gateway.namespace import NewCredential
from gateway.openai.fields import decode_body, invalid
from gateway.reply import Reply
from gateway.store.records import OwnCredential
from trestle.sealed import MAX_SEALED_BYTES, Purpose, pair_name, seal

if TYPE_CHECKING:
    from gateway.store.names import NameStore

_HINTED: Final = 16
"""A secret so long may show its last characters."""


_NEW: Final = msgspec.json.Decoder(NewCredential)


class CredentialsHandler:
    """keys: the public key of each worker that takes credentials, by its name."""

    def __init__(self, store: NameStore, directory: Directory, keys: Mapping[str, bytes]) -> None:
        self._store = store
        self._directory = directory
        self._keys = keys

    async def create(self, exchange: Exchange) -> Reply:
        asked: NewCredential = decode_body(_NEW, await read_body(exchange, MAX_BODY_BYTES))
        key = self._keys.get(asked.worker)
        if key is None:
            raise invalid("worker", f"Invalid value for 'worker': '{asked.worker}' takes no credentials of accounts.")
        account = exchange.identity.account
        sealed = seal(key, Purpose(account, asked.worker, asked.upstream), asked.secret)
        if len(sealed) > MAX_SEALED_BYTES:
            raise invalid("secret", "Invalid value for 'secret': it is too long.")
        credential = OwnCredential(
            account=account,
            name=asked.name,
            worker=asked.worker,
            upstream=asked.upstream,
            sealed=sealed,
            pair=pair_name(key),
            hint=asked.secret[-4:] if len(asked.secret) >= _HINTED else "",
            created=int(time.time()),
        )
        await self._store.add_credential(credential)
        await self._directory.catch_up()
        return exchange.json(_shown(credential))

    async def list(self, exchange: Exchange) -> Reply:
        found = self._directory.namespace(exchange.identity.account).credentials.values()
        return exchange.json({"object": "list", "data": [_shown(each) for each in found]})

    async def delete(self, exchange: Exchange) -> Reply:
        name = exchange.named["name"]
        await self._store.remove_credential(exchange.identity.account, name)
        await self._directory.catch_up()
        return exchange.json({"id": name, "object": "credential", "deleted": True})


def _shown(credential: OwnCredential) -> dict[str, Any]:
    return {
        "id": credential.name,
        "object": "credential",
        "name": credential.name,
        "worker": credential.worker,
        "upstream": credential.upstream,
        "secret": f"…{credential.hint}",
        "pair": credential.pair,
        "created": credential.created,
    }

"""`GET /v1/models` and `GET /v1/models/{id}`; where there are accounts, `POST` to the first, `DELETE` of the second."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Raw

from gateway.agents import preset_of_defaults
from gateway.catalogue import Catalogue
from gateway.directory import Directory
from gateway.exchange import Exchange
from gateway.handlers.base import Namespaces, read_body
from gateway.identity import Identity
from gateway.namespace import NewModel
from gateway.openai.fields import decode_body, forwarded, invalid
from gateway.reply import Reply
from gateway.routing import PublicModel, Router
from trestle.openjson import NOTHING

if TYPE_CHECKING:
    from gateway.store.names import NameStore

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of what an account adds."""


_NEW_MODEL: Final = msgspec.json.Decoder(NewModel)


class ModelsHandler:
    """What the caller may ask for: the agents and models of its account, then the shared ones."""

    def __init__(self, router: Router, catalogue: Catalogue, namespaces: Namespaces) -> None:
        self._router = router
        self._catalogue = catalogue
        self._namespaces = namespaces

    async def list(self, exchange: Exchange) -> Reply:
        await self._catalogue.ask(self._router.unlisted)
        data = [_model(model) for model in self._models(exchange.identity)]
        return exchange.json({"object": "list", "data": data})

    async def retrieve(self, exchange: Exchange) -> Reply:
        name, identity = exchange.named["id"], exchange.identity
        identity.demand_model(name)
        for model in self._added(identity.account):
            if model.id == name:
                return exchange.json(_model(model))
        await self._catalogue.resolve(name)
        return exchange.json(_model(self._router.model(name)))

    def _models(self, identity: Identity) -> Iterator[PublicModel]:
        hidden: set[str] = set()
        for model in self._added(identity.account):
            hidden.add(model.id)
            if identity.allows(model.id):
                yield model
        for model in self._router.models():
            if model.id not in hidden and identity.allows(model.id):
                yield model

    def _added(self, account: str) -> Iterator[PublicModel]:
        added = self._namespaces(account)
        for agent in added.agents.values():
            yield PublicModel(agent.record.name, agent.record.created, account)
        for own in added.models.values():
            yield PublicModel(own.record.name, own.record.created, account)


class OwnModelsHandler:
    """What an account adds. workers: the names of the configuration's."""

    def __init__(self, store: NameStore, directory: Directory, workers: Collection[str]) -> None:
        self._store = store
        self._directory = directory
        self._workers = workers

    async def create(self, exchange: Exchange) -> Reply:
        asked: NewModel = decode_body(_NEW_MODEL, await read_body(exchange, MAX_BODY_BYTES))
        if asked.worker not in self._workers:
            raise invalid("worker", f"Invalid value for 'worker': there is no worker '{asked.worker}'.")
        defaults = b"" if asked.defaults is NOTHING else forwarded(asked.defaults, "defaults")
        if defaults:
            preset_of_defaults(asked.name, defaults)
        record = await self._store.add_model(
            exchange.identity.account,
            asked.name,
            worker=asked.worker,
            upstream=asked.upstream or "",
            model=asked.model,
            defaults=defaults,
            credential=asked.credential or "",
        )
        await self._directory.catch_up()
        return exchange.json(
            {
                **_model(PublicModel(record.name, record.created, record.account)),
                "worker": record.worker,
                "upstream": record.upstream,
                "model": record.model,
                "defaults": Raw(record.defaults or b"null"),
                "credential": record.credential or None,
            }
        )

    async def delete(self, exchange: Exchange) -> Reply:
        name = exchange.named["id"]
        await self._store.remove_model(exchange.identity.account, name)
        await self._directory.catch_up()
        return exchange.json({"id": name, "object": "model", "deleted": True})


def _model(model: PublicModel) -> dict[str, object]:
    return {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}

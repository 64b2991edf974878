"""`/v1/agents`: the named presets of the caller's account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from gateway.agents import Agent, Name, NewAgent, preset_of
from gateway.directory import Directory
from gateway.exchange import Exchange
from gateway.handlers.base import read_body
from gateway.handlers.models import MAX_BODY_BYTES
from gateway.namespace import AddedAgent, agent_of
from gateway.openai.errors import not_found
from gateway.openai.fields import decode_body, invalid
from gateway.reply import Reply
from gateway.store.records import OwnAgent
from trestle.errors import CallError
from trestle.openjson import NOTHING, join, members

if TYPE_CHECKING:
    from gateway.store.names import NameStore


class _Named(msgspec.Struct):
    name: Name


_NEW: Final = msgspec.json.Decoder(NewAgent)
_NAMED: Final = msgspec.json.Decoder(_Named)
_AGENT: Final = msgspec.json.Decoder(Agent)
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_NULL: Final = b"null"


class AgentsHandler:
    """What is written is known to this gateway before it answers, to others soon after."""

    def __init__(self, store: NameStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def list(self, exchange: Exchange) -> Reply:
        agents = self._directory.namespace(exchange.identity.account).agents.values()
        return exchange.json({"object": "list", "data": [_shown(each) for each in agents]})

    async def create(self, exchange: Exchange) -> Reply:
        given = await self._given(exchange)
        name: str = decode_body(_NEW, join(given)).name
        return await self._written(exchange, await self._add(exchange, name, given))

    async def get(self, exchange: Exchange) -> Reply:
        name = _named(exchange)
        found = self._directory.namespace(exchange.identity.account).agents.get(name)
        if found is None:
            raise not_found("agent", name)
        return exchange.json(_shown(found))

    async def replace(self, exchange: Exchange) -> Reply:
        """Makes it where there is none."""
        name, given = _named(exchange), await self._given(exchange)
        definition = self._definition(exchange, name, given)
        try:
            record = await self._store.change_agent(exchange.identity.account, name, lambda _: definition)
        except CallError as error:
            if error.code != "not_found":
                raise
            record = await self._add(exchange, name, given)
        return await self._written(exchange, record)

    async def change(self, exchange: Exchange) -> Reply:
        name, given = _named(exchange), await self._given(exchange)

        def changed(old: bytes) -> bytes:
            merged = {**members(old), **given}
            kept = {member: value for member, value in merged.items() if bytes(value) != _NULL}
            return self._definition(exchange, name, kept)

        return await self._written(
            exchange, await self._store.change_agent(exchange.identity.account, name, changed)
        )

    async def delete(self, exchange: Exchange) -> Reply:
        name = _named(exchange)
        await self._store.remove_agent(exchange.identity.account, name)
        await self._directory.catch_up()
        return exchange.json({"id": name, "object": "agent", "deleted": True})

    async def _given(self, exchange: Exchange) -> dict[str, Raw]:
        given: dict[str, Raw] = decode_body(_OBJECT, await read_body(exchange, MAX_BODY_BYTES))
        return given

    async def _add(self, exchange: Exchange, name: str, given: dict[str, Raw]) -> OwnAgent:
        definition = self._definition(exchange, name, given)
        return await self._store.add_agent(exchange.identity.account, name, definition)

    def _definition(self, exchange: Exchange, name: str, given: dict[str, Raw]) -> bytes:
        """What is kept of the members given. Raises `CallError` naming the one that cannot be."""
        called = given.get("name", Raw(msgspec.json.encode(name)))
        if decode_body(_NAMED, join({"name": called})).name != name:
            raise invalid("name", f"Invalid value for 'name': the agent is called '{name}', and keeps its name.")
        text = join({member: value for member, value in given.items() if member != "name"}) or b"{}"
        agent: Agent = decode_body(_AGENT, text)
        if agent.model == name or agent.model in self._directory.namespace(exchange.identity.account).agents:
            raise invalid("model", f"Invalid value for 'model': '{agent.model}' is an agent itself.")
        preset_of(name, agent)
        return msgspec.json.encode(agent)

    async def _written(self, exchange: Exchange, record: OwnAgent) -> Reply:
        await self._directory.catch_up()
        return exchange.json(_shown(agent_of(record)))


def _named(exchange: Exchange) -> str:
    return exchange.named["name"]


def _shown(added: AddedAgent) -> dict[str, Any]:
    agent = added.agent
    return {
        "id": added.record.name,
        "object": "agent",
        "created": added.record.created,
        "name": added.record.name,
        "description": agent.description,
        "system_prompt": agent.system_prompt,
        "model": agent.model,
        "parameters": agent.parameters or {},
        "tools": agent.tools,
        "tool_choice": _raw(agent.tool_choice),
        "response_format": _raw(agent.response_format),
        "add_today": agent.add_today is True,
        "time_zone": agent.time_zone,
        "locked": agent.locked or [],
    }


def _raw(value: Raw) -> Raw | None:
    return None if value is NOTHING else value

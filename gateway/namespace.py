"""What one account added, ready for requests. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.agents import Agent, Name, Preset, preset_of, preset_of_defaults
from gateway.openai.fields import RawObject
from gateway.routing import Route
from gateway.settings import OwnTarget, Target
from gateway.store.records import Names, OwnAgent, OwnCredential, OwnModel
from trestle.errors import CallError
from trestle.logs import failure, words
from trestle.openjson import NOTHING

log = logging.getLogger("gateway")
_AGENT: Final = msgspec.json.Decoder(Agent)


class NewModel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A model to add: a worker of the configuration, one of its upstreams (empty: its first) and the model's name
    there. defaults: members of a chat request. credential: one of the account's own, for this worker and upstream."""

    name: Name
    worker: Annotated[str, Meta(min_length=1, max_length=128)]
    upstream: Annotated[str, Meta(max_length=128)] | None = None
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    defaults: RawObject = NOTHING
    credential: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class NewCredential(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """worker, upstream: of the configuration; secret: what the upstream is to be shown."""

    name: Name
    worker: Annotated[str, Meta(min_length=1, max_length=128)]
    upstream: Annotated[str, Meta(min_length=1, max_length=128)]
    secret: Annotated[str, Meta(min_length=1, max_length=4096, pattern=r"^[!-~]+$")]

    def __repr__(self) -> str:
        return f"NewCredential({self.name!r})"


@dataclass(frozen=True, slots=True)
class AddedModel:
    """preset: its defaults, where it has some."""

    record: OwnModel
    route: Route
    preset: Preset | None


@dataclass(frozen=True, slots=True)
class AddedAgent:
    """agent: as it was written; preset: as it is used."""

    record: OwnAgent
    agent: Agent
    preset: Preset


@dataclass(frozen=True, slots=True)
class Namespace:
    """By public name, each in the order in which it was added. No name is in both."""

    models: Mapping[str, AddedModel] = field(default_factory=dict)
    agents: Mapping[str, AddedAgent] = field(default_factory=dict)
    credentials: Mapping[str, OwnCredential] = field(default_factory=dict)


NOTHING_ADDED: Final = Namespace()


def namespace_of(names: Names) -> Namespace:
    """What cannot be read, as a later version may have written it, is left out and logged."""
    models: dict[str, AddedModel] = {}
    agents: dict[str, AddedAgent] = {}
    credentials = {each.name: each for each in names.credentials}
    for model in names.models:
        try:
            models[model.name] = _model(model, credentials)
        except (CallError, msgspec.DecodeError) as error:
            log.warning("the model %s of the account %s cannot be used", model.name, model.account, extra=_why(error))
    for agent in names.agents:
        try:
            agents[agent.name] = agent_of(agent)
        except (CallError, msgspec.DecodeError) as error:
            log.warning("the agent %s of the account %s cannot be used", agent.name, agent.account, extra=_why(error))
    return Namespace(models, agents, credentials)


def _why(error: CallError | msgspec.DecodeError) -> dict[str, object]:
    """As fields of a line in the log; what is at fault may be an agent's own text."""
    return {**failure(error), "param": error.param} if isinstance(error, CallError) else {"why": words(error)}


def _model(record: OwnModel, credentials: Mapping[str, OwnCredential]) -> AddedModel:
    target = Target(worker=record.worker, upstream=record.upstream, model=record.model)
    if record.credential:
        sealed = credentials[record.credential].sealed
        # Of its own, so that a refusal of this credential rests nobody else's target.
        target = OwnTarget(
            worker=record.worker,
            upstream=record.upstream,
            model=record.model,
            account=record.account,
            credential=sealed,
        )
    preset = preset_of_defaults(record.name, record.defaults) if record.defaults else None
    return AddedModel(record, Route(record.name, (target,)), preset)


def agent_of(record: OwnAgent) -> AddedAgent:
    """Raises `CallError` or msgspec's DecodeError where the definition cannot be used."""
    agent = _AGENT.decode(record.definition)
    return AddedAgent(record, agent, preset_of(record.name, agent))

"""What each endpoint takes and gives, as the description of the API says it. Pure data; the paths stand in the table of
routes, which is the gateway's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from gateway import identity
from gateway.agents import Agent, AgentChange, NewAgent
from gateway.namespace import NewCredential, NewModel
from gateway.openai import embeddings, moderations, text, wire
from gateway.openai.errors import STATUSES


@dataclass(frozen=True, slots=True)
class Operation:
    """id: operationId. request: the name of the body's schema and the type it is decoded into; None: no body. answer:
    the schema of a 200, by its name. stream: the schema of a stream's events, where the request may ask for one.
    others: statuses with another answer than an error. errors: statuses of the error object. scope: what the caller's
    key must be good for; empty: nothing in particular. kind: what a request is called where requests are recorded
    (OpenTelemetry's `gen_ai.operation.name`); empty: they are not. media: the answer's media type; also: another one
    that may be asked for. query: parameters of the query and what they mean."""

    id: str
    summary: str
    answer: str
    errors: frozenset[int]
    request: tuple[str, type[msgspec.Struct]] | None = None
    stream: str | None = None
    others: Mapping[int, str] = field(default_factory=dict)
    scope: str = ""
    kind: str = ""
    media: str = "application/json"
    query: Mapping[str, str] = field(default_factory=dict)
    also: str = ""


_ALWAYS: Final = frozenset({400, 500})

CHAT: Final = Operation(
    "createChatCompletion",
    "A chat completion, in one piece or as a stream of events.",
    "ChatCompletion",
    STATUSES,
    ("CreateChatCompletionRequest", wire.Body),
    "ChatCompletionChunk",
    scope=identity.CHAT,
    kind="chat",
)
COMPLETION: Final = Operation(
    "createCompletion",
    "A legacy text completion, in one piece or as a stream of events.",
    "TextCompletion",
    STATUSES,
    ("CreateCompletionRequest", text.Body),
    "TextCompletion",
    scope=identity.CHAT,
    kind="text_completion",
)
EMBEDDINGS: Final = Operation(
    "createEmbedding",
    "Vectors of texts or of token ids.",
    "Embeddings",
    STATUSES,
    ("CreateEmbeddingRequest", embeddings.Body),
    scope=identity.EMBEDDINGS,
    kind="embeddings",
)
MODERATION: Final = Operation(
    "createModeration",
    "Judges content, where a worker can.",
    "Moderation",
    STATUSES,
    ("CreateModerationRequest", moderations.Body),
    scope=identity.CHAT,
    kind="moderation",
)
LIST_MODELS: Final = Operation("listModels", "The models there are to ask for.", "Models", _ALWAYS)
RETRIEVE_MODEL: Final = Operation(
    "retrieveModel",
    "One model. Its id may hold '/' and ':', raw or escaped.",
    "Model",
    _ALWAYS | {404, 503},
)
SESSION_EVENTS: Final = Operation(
    "listSessionEvents",
    "What happens in a session of the caller's account, while it happens. Goes on behind the event that "
    "`Last-Event-ID` or `after` names.",
    "SessionEvents",
    _ALWAYS | {403},
    scope=identity.CHAT,
    media="text/event-stream",
)
LIVE: Final = Operation("live", "The process lives.", "Alive", _ALWAYS)
READY: Final = Operation(
    "ready", "The gateway is of use: a worker serves.", "Readiness", _ALWAYS, others={503: "Readiness"}
)
DESCRIBE: Final = Operation("describe", "This description.", "OpenAPI", _ALWAYS)

# Where there are accounts.
_MANAGED: Final = _ALWAYS | {404, 409, 413, 503}
ADD_MODEL: Final = Operation(
    "createModel",
    "Adds a model to the caller's account.",
    "AddedModel",
    _MANAGED,
    ("CreateModelRequest", NewModel),
    scope=identity.MANAGE,
)
REMOVE_MODEL: Final = Operation(
    "deleteModel", "Removes a model of the caller's account.", "Deleted", _MANAGED, scope=identity.MANAGE
)
LIST_CREDENTIALS: Final = Operation(
    "listCredentials", "The credentials of the caller's account, masked.", "Credentials", _ALWAYS, scope=identity.MANAGE
)
CREATE_CREDENTIAL: Final = Operation(
    "createCredential",
    "Seals a credential for one worker and upstream.",
    "Credential",
    _MANAGED,
    ("CreateCredentialRequest", NewCredential),
    scope=identity.MANAGE,
)
DELETE_CREDENTIAL: Final = Operation(
    "deleteCredential", "Removes a credential that no model uses.", "Deleted", _MANAGED, scope=identity.MANAGE
)
USAGE: Final = Operation(
    "listUsage",
    "What the caller's account used, summed up.",
    "Usages",
    _ALWAYS | {503},
    scope=identity.MANAGE,
    query={
        "from": "A day, a time or Unix seconds, in UTC; 30 days before `to` unless said.",
        "to": "As `from`, not included; now unless said.",
        "group_by": "Of day, model, key, user, session, client, agent, outcome, with commas between.",
        **dict.fromkeys(("model", "key", "user", "session", "client", "agent", "outcome"), "Of this one alone."),
        "limit": "How many groups; 1,000 unless said.",
        "offset": "How many groups to leave out.",
        "format": "json or csv; else as `Accept` says.",
    },
    also="text/csv",
)
LIST_AGENTS: Final = Operation(
    "listAgents", "The agents of the caller's account.", "Agents", _ALWAYS, scope=identity.MANAGE
)
CREATE_AGENT: Final = Operation(
    "createAgent",
    "Makes an agent in the caller's account.",
    "Agent",
    _MANAGED,
    ("CreateAgentRequest", NewAgent),
    scope=identity.MANAGE,
)
RETRIEVE_AGENT: Final = Operation("retrieveAgent", "One agent.", "Agent", _ALWAYS | {404}, scope=identity.MANAGE)
REPLACE_AGENT: Final = Operation(
    "replaceAgent",
    "Replaces an agent, or makes it.",
    "Agent",
    _MANAGED,
    ("ReplaceAgentRequest", Agent),
    scope=identity.MANAGE,
)
CHANGE_AGENT: Final = Operation(
    "changeAgent",
    "Sets members of an agent; null takes one away.",
    "Agent",
    _MANAGED,
    ("ChangeAgentRequest", AgentChange),
    scope=identity.MANAGE,
)
DELETE_AGENT: Final = Operation("deleteAgent", "Removes an agent.", "Deleted", _MANAGED, scope=identity.MANAGE)

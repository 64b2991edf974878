"""A `ChatRequest` as a request of generateContent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.content import Object, refused
from worker.families.gemini.plan import Plan
from worker.families.gemini.tools import encode_tools, json_schema
from worker.families.gemini.turns import Conversation

MOST_STOPS: Final = 5
# Tiers by OpenAI's words. Vertex AI knows none of them.
SERVICE_TIERS: Final[Mapping[str, str]] = {"default": "standard", "flex": "flex", "priority": "priority"}
_MODALITIES: Final = {"text": "TEXT", "image": "IMAGE"}
_PASSED: Final = ("safetySettings", "cachedContent", "labels")
_SEEDS: Final = 2**31  # the API's seeds are of 32 bits


def encode_chat(request: chat_pb2.ChatRequest, plan: Plan) -> bytes:
    """The request's body. Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the field that cannot be written."""
    if "audio" in request.modalities or request.audio_json:
        # It speaks in raw PCM and in voices of its own; a client that knows may ask for it in Gemini's own words.
        raise refused("OpenAI's spoken output", "modalities" if "audio" in request.modalities else "audio")
    conversation = Conversation(request, plan)
    body: Object = {"contents": conversation.encoded()}
    if conversation.system:
        body["systemInstruction"] = {"parts": conversation.system}
    body |= encode_tools(request, plan)
    config = _config(request, plan)
    if config:
        body["generationConfig"] = config
    for name in _PASSED:
        if name in plan.own:
            body[name] = plan.own[name]
    tier = SERVICE_TIERS.get(request.service_tier)
    if tier is not None and not plan.vertex:
        body["serviceTier"] = tier
    return msgspec.json.encode(body)


def _config(request: chat_pb2.ChatRequest, plan: Plan) -> Object:
    """The `generationConfig`; what the client says in Gemini's own words wins."""
    out: Object = _sampling(request.sampling, plan) if request.HasField("sampling") else {}
    if plan.json == "native":
        out |= _json_form(request.response_format)
    if request.modalities:
        kinds = [_MODALITIES.get(each, each.upper()) for each in request.modalities]
        if kinds != ["TEXT"]:
            out["responseModalities"] = kinds
    if plan.thinking is not None:
        out["thinkingConfig"] = plan.thinking
    return out | plan.config


def _sampling(sampling: chat_pb2.Sampling, plan: Plan) -> Object:
    out: Object = {}
    if plan.traits.sampling:
        if sampling.HasField("temperature"):
            out["temperature"] = sampling.temperature
        if sampling.HasField("top_p"):
            out["topP"] = sampling.top_p
    for name in ("max_completion_tokens", "max_tokens"):
        if sampling.HasField(name):
            limit: int = getattr(sampling, name)
            if limit >= 0:  # -1 is some vendors' "no limit"
                out["maxOutputTokens"] = limit
            break
    stop = [text for text in sampling.stop if text][:MOST_STOPS]
    if stop:
        out["stopSequences"] = stop
    if plan.traits.penalties or plan.vertex:
        # A penalty of zero asks for nothing, and some models refuse to hear of any.
        if sampling.presence_penalty:
            out["presencePenalty"] = sampling.presence_penalty
        if sampling.frequency_penalty:
            out["frequencyPenalty"] = sampling.frequency_penalty
    if sampling.HasField("seed"):
        seed = sampling.seed
        out["seed"] = seed if -_SEEDS <= seed < _SEEDS else seed % _SEEDS
    if sampling.logprobs:
        out["responseLogprobs"] = True
        if sampling.top_logprobs:
            out["logprobs"] = sampling.top_logprobs
    return out


def _json_form(wanted: chat_pb2.ResponseFormat) -> Object:
    out: dict[str, Any] = {"responseMimeType": "application/json"}
    if wanted.HasField("json_schema") and wanted.json_schema.schema_json:
        where = "response_format.json_schema.schema"
        schema = json_schema(wanted.json_schema.schema_json, where)
        if wanted.json_schema.description:
            try:
                found = msgspec.json.decode(schema, type=dict[str, Raw])
            except msgspec.DecodeError:
                raise CallError(Reason.INVALID_REQUEST, f"{where}: not a JSON Schema.", param=where) from None
            if "description" not in found and "$ref" not in found:
                found["description"] = Raw(msgspec.json.encode(wanted.json_schema.description))
            schema = Raw(msgspec.json.encode(found))
        out["responseJsonSchema"] = schema
    return out

"""A `ChatRequest` as a request of the Messages API. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.anthropic.plan import Plan
from worker.families.anthropic.schema import native_schema
from worker.families.anthropic.tools import encode_tools
from worker.families.anthropic.turns import Conversation
from worker.request_json import object_of, text_of

# Members of Anthropic's own that a client may send beside OpenAI's, as they are.
PASSED: Final = frozenset(
    {
        "billing_policy",
        "cache_control",
        "compaction",
        "container",
        "context_management",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "mcp_servers",
        "speed",
        "thread",
    }
)
# Those that are merged with what the request says in OpenAI's words.
MERGED: Final = frozenset({"betas", "metadata", "output_config", "output_format", "thinking", "top_k"})
_NULL: Final = Raw(b"null")
# An address, or nothing but a telephone number.
_PERSONAL: Final = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+|^\+?[\d\s()./-]{7,}$")
_LONGEST_USER: Final = 256
SERVICE_TIERS: Final = {
    "auto": "auto",
    "priority": "auto",
    "default": "standard_only",
    "standard_only": "standard_only",
}


def encode_chat(request: chat_pb2.ChatRequest, plan: Plan) -> bytes:
    """The request's body. Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the field that cannot be written."""
    if "audio" in request.modalities or request.audio_json:
        raise CallError(
            Reason.UNSUPPORTED,
            "The anthropic family does not speak: audio output is not to be had.",
            param="modalities" if "audio" in request.modalities else "audio",
            code="unsupported_value",
        )
    conversation = Conversation(request, plan)
    body: dict[str, Any] = {"model": request.model, "max_tokens": plan.max_tokens}
    system = conversation.encoded_system()
    if system is not None:
        body["system"] = system
    body["messages"] = conversation.encoded_turns()
    body |= encode_tools(request, plan, conversation.calls)
    if request.stream:
        body["stream"] = True
    for name in ("thinking", "temperature", "top_p", "top_k"):
        value = getattr(plan, name)
        if value is not None:
            body[name] = value
    stop = [text for text in request.sampling.stop if text and not text.isspace()]
    if stop:
        body["stop_sequences"] = stop
    output = _output_config(request, plan)
    if output:
        body["output_config"] = output
    metadata = _metadata(request, plan)
    if metadata:
        body["metadata"] = metadata
    tier = SERVICE_TIERS.get(request.service_tier)
    if tier is not None:
        body["service_tier"] = tier
    for name in PASSED & plan.extra.keys():
        body[name] = plan.extra[name]
    return msgspec.json.encode(body)


def betas(plan: Plan) -> list[str]:
    """The client's own list for the `anthropic-beta` header. Raises `CallError` (INVALID_REQUEST)."""
    listed = plan.extra.get("betas")
    if listed is None:
        return []
    try:
        found = msgspec.json.decode(listed, type=list[str] | None) or []
    except msgspec.DecodeError:
        found = [""]
    if not all(each.isascii() and each.isprintable() and each for each in found):
        raise CallError(Reason.INVALID_REQUEST, "betas: not a list of names.", param="betas", code="invalid_type")
    return found


def _output_config(request: chat_pb2.ChatRequest, plan: Plan) -> dict[str, Any]:
    """Effort and the form of the answer; what the client says in Anthropic's own words wins."""
    out: dict[str, Any] = {}
    if plan.effort:
        out["effort"] = plan.effort
    if plan.json == "native":
        schema = native_schema(request.response_format.json_schema.schema_json)
        assert schema is not None  # the plan asked
        out["format"] = {"type": "json_schema", "schema": Raw(schema)}
    own = plan.extra.get("output_format", _NULL)
    if bytes(own) != b"null":
        out["format"] = own
    own = plan.extra.get("output_config", _NULL)
    if bytes(own) != b"null":
        out |= object_of(bytes(own), "output_config")
    return out


def _metadata(request: chat_pb2.ChatRequest, plan: Plan) -> dict[str, Any]:
    """Who the end user is; of OpenAI's free metadata the API takes this one key. It wants nothing in it by which a
    person is known, refuses addresses and telephone numbers, and takes 256 characters: of such a name goes a digest."""
    own = plan.extra.get("metadata", _NULL)
    named = "" if bytes(own) == b"null" else text_of(object_of(bytes(own), "metadata").get("user_id"))
    user = named or request.safety_identifier or request.user
    if len(user) > _LONGEST_USER or _PERSONAL.search(user):  # in this order: what is looked for takes long in long text
        user = hashlib.sha256(user.encode()).hexdigest()
    return {"user_id": user} if user else {}

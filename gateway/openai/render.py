"""The pieces that a streamed chunk and an answer in one piece share: usage, logprobs, tool calls, extras. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.openjson import members
from trestle.v1 import chat_pb2

Object = dict[str, Any]

FINISH: Final[Mapping[int, str]] = {
    chat_pb2.FINISH_REASON_STOP: "stop",
    chat_pb2.FINISH_REASON_LENGTH: "length",
    chat_pb2.FINISH_REASON_TOOL_CALLS: "tool_calls",
    chat_pb2.FINISH_REASON_CONTENT_FILTER: "content_filter",
    chat_pb2.FINISH_REASON_FUNCTION_CALL: "function_call",
}
"""Never another word than OpenAI's (WIRE 10): whatever is not here is `stop`."""


def finish_word(finish: chat_pb2.Finish) -> str:
    """The finish_reason of a choice."""
    return FINISH.get(finish.reason, "stop")


_TIERS: Final = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})


def service_tier(started: chat_pb2.Started) -> Object:
    """The member `service_tier`, when one of OpenAI's own words was said: strict readers refuse a vendor's."""
    return {"service_tier": started.service_tier} if started.service_tier in _TIERS else {}


def extend(target: Object, extra_json: bytes) -> Object:
    """Adds the members of an `extra_json` that are not there yet: a typed member beats its namesake."""
    if extra_json:
        try:
            for name, value in members(extra_json).items():
                target.setdefault(name, value)
        except msgspec.DecodeError:
            pass  # not ours to judge in the middle of an answer: the contract says an object
    return target


def extend_choice(choice: Object, extra_json: bytes) -> Object:
    """`extend`; and the logprobs in a vendor's own form, where there are none in OpenAI's."""
    extend(choice, extra_json)
    if choice["logprobs"] is None and b'"logprobs"' in extra_json:
        choice["logprobs"] = extend({}, extra_json).get("logprobs")
    return choice


def reasoning_block(
    index: int, text: str, signature: str, redacted: bytes, sealed_by: str, position: int
) -> Object:
    """One sealed block of thinking, self-contained, as the client is to send it back (docs/extensions.md)."""
    block: Object = {"index": index, "text": text, "position": position}
    if signature:
        block["signature"] = signature
    if redacted:
        block["redacted"] = base64.b64encode(redacted).decode()
    if sealed_by:
        block["by"] = sealed_by
    return block


def seal(signature: str, sealed_by: str) -> Object:
    """The seal on a tool call, as the client is to send it back."""
    return {"by": sealed_by, "signature": signature}


def usage(counts: chat_pb2.Usage) -> Object:
    """OpenAI's usage object; parts that the upstream did not say are zero, as OpenAI has them."""
    total = counts.total_tokens if counts.HasField("total_tokens") else counts.input_tokens + counts.output_tokens
    prompt: Object = {"cached_tokens": counts.cache_read_tokens, "audio_tokens": counts.input_audio_tokens}
    if counts.HasField("cache_write_tokens"):
        prompt["cache_write_tokens"] = counts.cache_write_tokens
    completion: Object = {
        "reasoning_tokens": counts.reasoning_tokens,
        "audio_tokens": counts.output_audio_tokens,
        "accepted_prediction_tokens": counts.accepted_prediction_tokens,
        "rejected_prediction_tokens": counts.rejected_prediction_tokens,
    }
    out: Object = {
        "prompt_tokens": counts.input_tokens,
        "completion_tokens": counts.output_tokens,
        "total_tokens": total,
        "prompt_tokens_details": extend(prompt, counts.input_details_extra_json),
        "completion_tokens_details": extend(completion, counts.output_details_extra_json),
    }
    if counts.estimated:
        out["estimated"] = True
    return extend(out, counts.extra_json)


def logprobs(found: chat_pb2.Logprobs) -> Object:
    """`{"content": [...] or null, "refusal": [...] or null}`."""
    content = [_token(token) for token in found.content] if found.has_content or found.content else None
    refusal = [_token(token) for token in found.refusal] if found.has_refusal or found.refusal else None
    return {"content": content, "refusal": refusal}


def _token(token: chat_pb2.TokenLogprob) -> Object:
    return {**_top(token), "top_logprobs": [_top(other) for other in token.top]}


def _top(token: chat_pb2.TokenLogprob) -> Object:
    raw = list(token.token_bytes) if token.HasField("token_bytes") else None
    return {"token": token.token, "logprob": token.logprob, "bytes": raw}


def extend_folded(target: Object, extra: Mapping[str, str]) -> Object:
    """`extend` with folded extras."""
    for name, value in raw_members(extra):
        target.setdefault(name, value)
    return target


def raw_members(extra: Mapping[str, str]) -> Iterable[tuple[str, Raw]]:
    """Folded extras, ready to be written."""
    return ((name, Raw(value.encode())) for name, value in extra.items())

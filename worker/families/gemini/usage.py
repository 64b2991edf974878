"""Gemini's `usageMetadata`, normalised. Pure."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, join, members
from trestle.v1 import chat_pb2
from worker.families.gemini import wire

_MAX: Final = 2**63
_COUNTS: Final = (
    "prompt_token_count",
    "candidates_token_count",
    "thoughts_token_count",
    "tool_use_prompt_token_count",
    "total_token_count",
)
# Members that have no name in the contract and are carried on as they are.
_DETAILS: Final = {
    "promptTokensDetails": "prompt_tokens_details",
    "candidatesTokensDetails": "candidates_tokens_details",
    "cacheTokensDetails": "cache_tokens_details",
    "toolUsePromptTokensDetails": "tool_use_prompt_tokens_details",
    "serviceTier": "service_tier",
    "trafficType": "traffic_type",
}


def count(value: wire.Number | None) -> int:
    """A count that the upstream told; 0 where it told none, or one that is no count."""
    return int(value) if value is not None and 0 <= value < _MAX else 0


def decode_usage(found: wire.Usage) -> chat_pb2.Usage | None:
    """The totals so far; None where nothing was counted, as Vertex AI's earlier chunks tell no more than the
    trafficType. Input includes what its own tools read into the prompt; output includes the thoughts."""
    if all(getattr(found, name) is None for name in _COUNTS):
        return None
    usage = chat_pb2.Usage(
        input_tokens=count(found.prompt_token_count) + count(found.tool_use_prompt_token_count),
        output_tokens=count(found.candidates_token_count) + count(found.thoughts_token_count),
    )
    if found.cached_content_token_count is not None:
        usage.cache_read_tokens = count(found.cached_content_token_count)
    if found.thoughts_token_count is not None:
        usage.reasoning_tokens = count(found.thoughts_token_count)
    audio_in, audio_out = _audio(found.prompt_tokens_details), _audio(found.candidates_tokens_details)
    if audio_in:
        usage.input_audio_tokens = audio_in
    if audio_out:
        usage.output_audio_tokens = audio_out
    total = count(found.total_token_count)
    if total and total != usage.input_tokens + usage.output_tokens:
        usage.total_tokens = total
    extra = {name: value for name, field in _DETAILS.items() if (value := getattr(found, field)) is not NOTHING}
    if found.extra is not NOTHING:
        extra |= members(found.extra)
    usage.extra_json = join(extra)
    return usage


def _audio(details: Raw) -> int:
    try:
        found = wire.TOKEN_COUNTS.decode(details) if details is not NOTHING else []
    except msgspec.DecodeError:
        return 0
    return sum(count(each.token_count) for each in found if each.modality == "AUDIO")

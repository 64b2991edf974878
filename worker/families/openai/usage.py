"""The `usage` object of OpenAI-like upstreams, normalised. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING
from trestle.v1 import chat_pb2
from worker.families.openai import wire


def decode_usage(found: wire.Usage, estimate: Callable[[], chat_pb2.Usage]) -> chat_pb2.Usage | None:
    """Totals and their parts; None where nothing was counted. estimate: the usage as it is guessed, asked for where
    prompt and completion are not told apart.

    OpenAI's own counts already include cache reads in the prompt and reasoning in the completion, so nothing is added
    up. Members that the contract does not name stay as extras at their level."""
    read, written = wire.whole(found.prompt_tokens), wire.whole(found.completion_tokens)
    total = wire.whole(found.total_tokens)
    usage = chat_pb2.Usage()
    if read is None and written is None:
        if not total:
            return None
        written, usage.estimated = min(total, estimate().output_tokens), True
    if total is not None:  # some name it and one of its parts
        read = max(0, total - (written or 0)) if read is None else read
        written = max(0, total - read) if written is None else written
    usage.input_tokens, usage.output_tokens = read or 0, written or 0
    if total is not None and total != usage.input_tokens + usage.output_tokens:
        usage.total_tokens = total
    if found.extra is not NOTHING:
        usage.extra_json = bytes(found.extra)
        _take_parts(usage, found.extra)
    prompt = found.prompt_tokens_details
    if prompt is not None:
        _set(usage, "cache_read_tokens", prompt.cached_tokens)
        _set(usage, "cache_write_tokens", prompt.cache_write_tokens)
        _set(usage, "input_audio_tokens", prompt.audio_tokens)
        if prompt.extra is not NOTHING:
            usage.input_details_extra_json = bytes(prompt.extra)
    completion = found.completion_tokens_details
    if completion is not None:
        _set(usage, "reasoning_tokens", completion.reasoning_tokens)
        _set(usage, "output_audio_tokens", completion.audio_tokens)
        _set(usage, "accepted_prediction_tokens", completion.accepted_prediction_tokens)
        _set(usage, "rejected_prediction_tokens", completion.rejected_prediction_tokens)
        if completion.extra is not NOTHING:
            usage.output_details_extra_json = bytes(completion.extra)
    return usage


def _take_parts(usage: chat_pb2.Usage, extra: Raw) -> None:
    """Parts that vendors tell beside the totals; those in OpenAI's details count before them."""
    try:
        parts = wire.PARTS.decode(extra)
    except msgspec.DecodeError:
        return
    for cached in (parts.prompt_cache_hit_tokens, parts.cached_tokens):
        _set(usage, "cache_read_tokens", cached)
    _set(usage, "reasoning_tokens", parts.reasoning_tokens)


def _set(usage: chat_pb2.Usage, field: str, value: wire.Number | None) -> None:
    count = wire.whole(value)
    if count is not None:
        setattr(usage, field, count)

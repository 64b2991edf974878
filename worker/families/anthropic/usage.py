"""Anthropic's `usage` object, normalised. Pure."""

from __future__ import annotations

from typing import Final, TypeGuard

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, join, members
from trestle.v1 import chat_pb2
from worker.families.anthropic import wire

_MAX: Final = 2**63
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


def is_count(value: float | None) -> TypeGuard[float]:
    """Whether it can be a number of tokens."""
    return value is not None and 0 <= value < _MAX


class UsageCount:
    """The usage of one answer, told in several events: each is a total, and what one does not say the earlier said."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen = wire.Usage()

    @property
    def tier(self) -> str:
        """The tier that served, in Anthropic's word; empty until said."""
        return self._seen.service_tier or ""

    def feed(self, found: wire.Usage) -> chat_pb2.Usage | None:
        """The totals so far; None while nothing was counted. Input includes what was read from the cache and written to
        it, as OpenAI counts."""
        seen = self._seen
        for name in _COUNTS:
            value = getattr(found, name)
            if is_count(value):
                setattr(seen, name, int(value))
        seen.service_tier = found.service_tier or seen.service_tier
        seen.output_tokens_details = found.output_tokens_details or seen.output_tokens_details
        if found.extra is not NOTHING:
            before = members(seen.extra) if seen.extra is not NOTHING else {}
            seen.extra = Raw(join(before | members(found.extra)))
        nothing = seen.input_tokens is None and seen.output_tokens is None
        return None if nothing else self._total()

    def _total(self) -> chat_pb2.Usage:
        seen = self._seen
        put_in, put_out, written, read = (_sum(getattr(seen, name), self._beside(name)) for name in _COUNTS)
        usage = chat_pb2.Usage(
            input_tokens=(put_in or 0) + (read or 0) + (written or 0), output_tokens=put_out or 0
        )
        if read is not None:
            usage.cache_read_tokens = read
        if written is not None:
            usage.cache_write_tokens = written
        details = seen.output_tokens_details
        if details is not None and is_count(details.thinking_tokens):
            usage.reasoning_tokens = int(details.thinking_tokens)
        if seen.extra is not NOTHING:
            usage.extra_json = bytes(seen.extra)
        return usage

    def _beside(self, name: str) -> list[float | None]:
        """What compactions took, which is billed and not in the totals (usage.iterations of the Messages API). An
        adviser's is another model's, at another price, and stays with the extras."""
        extra = self._seen.extra
        listed = members(extra).get("iterations") if extra is not NOTHING else None
        if listed is None:
            return []
        try:
            found = wire.ITERATIONS.decode(listed) or []
        except msgspec.DecodeError:
            return []
        return [getattr(each, name) for each in found if each.type == "compaction"]


def _sum(total: float | None, beside: list[float | None]) -> int | None:
    """None where nothing was counted."""
    counts = [int(each) for each in (total, *beside) if is_count(each)]
    return sum(counts) if counts else None

"""Pieces of text, read by what stands around them. Pure.

The chunks of a stream differ in their text alone, nearly all of them, and OpenAI's in a padding (`obfuscation`). Where
all else of a chunk is the same bytes as of one that said nothing but text, and in the text's place stands a JSON
string, this one says nothing but text too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

Plain: TypeAlias = tuple[str, bytes]
"""The text of a chunk that says nothing else, and its padding as it stands there, without quotes; empty for none."""

_STRING: Final = re.compile(rb'\s*("(?:[^"\\]|\\.)*")', re.DOTALL)
_PADDING: Final = re.compile(rb'"obfuscation":\s*"([A-Za-z0-9]+)"')
_PROBE: Final[Plain] = ("\N{SNOWMAN}", b"Sn0w")
_text: Final = msgspec.json.Decoder(str).decode


class TextTemplate:
    """What stands around the text of a chunk, and around its padding. choice: the chunk's."""

    __slots__ = ("_after", "_before", "_between", "_least", "choice")

    def __init__(self, choice: int, before: bytes, between: bytes, after: bytes) -> None:
        """between: of text and padding; empty where there is none."""
        self.choice = choice
        self._before = before
        self._between = between
        self._after = after
        self._least = len(before) + len(between) + len(after) + 2

    @classmethod
    def of(cls, data: bytes, choice: int, key: bytes, read: Callable[[bytes], Plain | None]) -> TextTemplate | None:
        """Of a chunk that says nothing but text. key: the member whose value is the text, as it stands in JSON. read:
        a chunk the long way; None for one that says anything else. None where it cannot be told for sure."""
        at = data.find(key)
        found = _STRING.match(data, at + len(key)) if at >= 0 else None
        if found is None or data.find(key, at + 1) >= 0:
            return None
        before, between, after = data[: found.start(1)], b"", data[found.end(1) :]
        text, padding = msgspec.json.encode(_PROBE[0]), b""
        if (padded := _PADDING.search(after)) is not None:
            between, after, padding = after[: padded.start(1)], after[padded.end(1) :], _PROBE[1]
        # The proof that this is where they were read from.
        if read(before + text + between + padding + after) != (_PROBE[0], padding):
            return None
        return cls(choice, before, between, after)

    def read(self, data: bytes) -> Plain | None:
        """What a chunk says, if it is like the one this is of; None: that must be found out otherwise."""
        if not data.startswith(self._before) or not data.endswith(self._after) or len(data) < self._least:
            return None
        said = data[len(self._before) : -len(self._after)]
        padding = b""
        if self._between:
            said, found, padding = said.rpartition(self._between)
            if not found or not padding.isalnum():
                return None
        try:
            if not said.isascii():
                said.decode()
            text = _text(said)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return (text, padding) if text or not padding else None

"""Pieces of text, read by what stands around them. Pure.

The chunks of a stream differ in their text alone, nearly all of them, and OpenAI's in a padding (`obfuscation`). Where
all else of a chunk is the same bytes as of one that said nothing but text, and in the text's place stands a JSON
string, this one says nothing but text too. Of many such in one read nothing is looked at one by one: what is cut
out where their texts must be is right if all else around it makes the same bytes again, and is read as one JSON array.
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
_texts: Final = msgspec.json.Decoder(list[str]).decode


class TextTemplate:
    """What stands around the text of a chunk, and around its padding. choice: the chunk's."""

    __slots__ = ("_after", "_before", "_begin", "_between", "_end", "_least", "choice")

    def __init__(self, choice: int, before: bytes, between: bytes, after: bytes) -> None:
        """between: of text and padding; empty where there is none."""
        self.choice = choice
        self._before = before
        self._between = between
        self._after = after
        self._least = len(before) + len(between) + len(after) + 2
        # As they stand in a stream of events; an event of several lines is not written so.
        self._begin = b"" if b"\n" in before + between + after else b"data: " + before
        self._end = after + b"\n\n"

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
            text = _text(said)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        return (text, padding) if text or not padding else None

    def read_run(self, data: bytes) -> tuple[list[str], list[bytes], int]:
        """What the events say which data begins with, as far as they are like the one this is of: their texts; their
        paddings, of none at all where there are none; how many bytes of data they are. Nothing where one of them is
        like it at its ends alone. data: begins where an event does."""
        begin, end = self._begin, self._end
        if not begin or not data.startswith(begin):
            return [], [], 0
        events = data.split(b"\n\n")
        events.pop()  # what comes after them
        said, size = self._said(events)
        if not size or not data.startswith(begin + (end + begin).join(said) + end):
            count = next((at for at, event in enumerate(events) if not self._is_like(event)), len(events))
            said, size = self._said(events[:count])
        paddings: list[bytes] = []
        if self._between:
            parts = [each.rpartition(self._between) for each in said]
            said = [text for text, _, _ in parts]
            paddings = [padding for _, _, padding in parts]
            if not all(padding.isalnum() for padding in paddings):
                return [], [], 0
        # No string goes over a line's end, so each of them is one string exactly, or this is no array of as many.
        array = b"[%b]" % b",\n".join(said)
        try:
            texts = _texts(array)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return [], [], 0
        if len(texts) != len(said) or (paddings and not all(texts)):
            return [], [], 0
        return texts, paddings, size

    def _said(self, events: list[bytes]) -> tuple[list[bytes], int]:
        """What stands in these events where the text does, and their size in a stream."""
        first, last = len(self._begin), 2 - len(self._end)
        return [event[first:last] for event in events], sum(map(len, events)) + 2 * len(events)

    def _is_like(self, event: bytes) -> bool:
        return len(event) > self._least and event.startswith(self._begin) and event.endswith(self._after)

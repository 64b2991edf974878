"""Characters that an upstream cuts in two: it counts in UTF-16, and escapes each half in a piece of its own. Pure.

No JSON decoder here takes such an escape. An event is read with U+FFFD in its place, and what it said of a choice is
then put right by what stood there: the first half of a character waits for the piece that begins with the second.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Raw

from worker.families.openai import wire

Place: TypeAlias = tuple[int, str, int]
"""A choice, the member that is cut, and the call's index where it is one of a call."""

_LOST: Final = "\ufffd"
_CALL: Final = "tool_calls"


class Halves:
    """The first halves of one answer that wait for their second. wanted: how many choices it is to have."""

    def __init__(self, wanted: int) -> None:
        self.held: dict[Place, str] = {}
        self._wanted = wanted

    def join(self, choices: Sequence[wire.Choice | wire.TextChoice], data: bytes) -> None:
        """Puts the texts of an event's choices right. data: the event as it came, if it has lone halves."""
        found = _items(_loose(data), "choices")
        # Numbered as `AnswerDecoder` does.
        by_place = self._wanted > 1 and len({choice.index for choice in choices}) < len(choices)
        for position, choice in enumerate(choices):
            index = position if by_place else choice.index or 0
            said = _item(found, position)
            if isinstance(choice, wire.TextChoice):
                choice.text = self._text((index, "text", 0), choice.text, said)
            elif choice.delta is not None:
                self._join_delta(index, choice.delta, _object(said, "delta"))

    def rest(self) -> Iterator[Any]:
        """What is said in the place of halves that still wait at the end, as choices of the decoder's own kind."""
        for index, name, call in sorted(self.held):
            if name == "text":
                yield wire.TextChoice(index=index, text=_LOST)
                continue
            said: Any = _LOST
            if name == _CALL:
                said = [_fragment(call)]
            elif name == "reasoning":
                said = _raw(_LOST)
            yield wire.Choice(index=index, delta=wire.Delta(**{name: said}))
        self.held.clear()

    def _text(self, place: Place, text: str | None, said: Mapping[str, Any]) -> str | None:
        """A text as it is to be told; said: the object that it stood in, as it came."""
        came = said.get(place[1])
        whole = came if isinstance(came, str) else text
        if not whole:
            return text
        whole = self.held.pop(place, "") + whole
        if _is_first(whole[-1]):
            self.held[place] = whole[-1]
            whole = whole[:-1]
        return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")

    def _join_delta(self, index: int, delta: wire.Delta, said: Mapping[str, Any]) -> None:
        if isinstance(delta.content, str):
            delta.content = self._text((index, "content", 0), delta.content, said)
        delta.reasoning_content = self._text((index, "reasoning_content", 0), delta.reasoning_content, said)
        delta.refusal = self._text((index, "refusal", 0), delta.refusal, said)
        if (reasoning := _string(delta.reasoning)) is not None:
            delta.reasoning = _raw(self._text((index, "reasoning", 0), reasoning, said))
        if delta.tool_calls and isinstance(delta.tool_calls, list):
            delta.tool_calls = list(self._fragments(index, delta.tool_calls, _items(said, "tool_calls")))

    def _fragments(
        self, index: int, calls: Sequence[wire.ToolCallPiece], said: Sequence[Any]
    ) -> Iterator[wire.ToolCallPiece]:
        for position, call in enumerate(calls):
            function = call.function
            text = _string(function.arguments) if function is not None else None
            if function is not None and text and call.index is not None:
                place = (index, _CALL, call.index)
                came = _object(_item(said, position), "function").get("arguments")
                whole = came if isinstance(came, str) else text
                if place in self.held and not "\udc00" <= whole[:1] <= "\udfff":
                    # Of its own: this one may be of another call that has the same index.
                    del self.held[place]
                    yield _fragment(call.index)
                function.arguments = _raw(self._text(place, whole, {}))
            yield call


def _fragment(call: int) -> wire.ToolCallPiece:
    return wire.ToolCallPiece(index=call, function=wire.FunctionPiece(arguments=_raw(_LOST)))


def _is_first(char: str) -> bool:
    return "\ud800" <= char <= "\udbff"


def _raw(text: str | None) -> Raw:
    return Raw(msgspec.json.encode(text))


def _string(raw: Raw) -> str | None:
    return msgspec.json.decode(raw, type=str) if bytes(raw)[:1] == b'"' else None


def _loose(data: bytes) -> Mapping[str, Any]:
    """An event with its lone halves as Python has them in text."""
    try:
        found = json.loads(data.decode()) if data else {}
    except (ValueError, RecursionError):  # what only msgspec takes: a number of thousands of digits
        return {}
    return found if isinstance(found, dict) else {}


def _object(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _items(found: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = found.get(name)
    return value if isinstance(value, list) else []


def _item(found: Sequence[Any], position: int) -> Mapping[str, Any]:
    value = found[position] if position < len(found) else None
    return value if isinstance(value, dict) else {}

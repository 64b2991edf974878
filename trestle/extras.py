"""Members that the contract does not name, folded from the pieces of one answer, verbatim.

The last value of a member wins; an array of objects with an `index` merges by index, where texts that come in pieces
(`text`, `summary`, `data`, `arguments`, `thinking`) are concatenated; `annotations` are concatenated. Each piece is
read once, however many there are: what they come to is written when it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from trestle.rawjson import join_array, join_object, split_array, split_object, value_of

_IN_PIECES: Final = frozenset({"text", "summary", "data", "arguments", "thinking"})


class Extras(Mapping[str, str]):
    """Verbatim JSON by member, as far as it was fed."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[str, str | _Array] = {}

    def feed(self, extra_json: bytes) -> None:
        """Folds one `extra_json` in. One that is not a JSON object is passed over: nothing of ours writes such, and an
        answer is worth more than a vendor's note on it."""
        try:
            members = split_object(extra_json.decode("utf-8"))
        except (ValueError, RecursionError):
            return
        for name, value in members.items():
            if name == "annotations" and value == "null":
                continue  # some vendors' word for none, and nothing to take away what came before
            before = self._members.get(name)
            if value[:1] != "[" or before is None or (isinstance(before, str) and before[:1] != "["):
                self._members[name] = value
            else:
                self._members[name] = _merged(name, before, value)

    def put(self, name: str, value: str) -> None:
        """In the place of what there is."""
        self._members[name] = value

    def take(self, name: str) -> str | None:
        """The member, which is none any more."""
        value = self._members.pop(name, None)
        return value if value is None or isinstance(value, str) else value.text()

    def __getitem__(self, name: str) -> str:
        value = self._members[name]
        return value if isinstance(value, str) else value.text()

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __repr__(self) -> str:
        return repr(dict(self))


class _Array(Protocol):
    """An array that came in several pieces."""

    def feed(self, piece: str) -> bool:
        """Takes the next one; False where it is none of the same kind."""

    def text(self) -> str:
        """All of it."""


class _List:
    """Items one after the other."""

    def __init__(self) -> None:
        self._items: list[str] = []

    def feed(self, piece: str) -> bool:
        self._items += split_array(piece)
        return True

    def text(self) -> str:
        return join_array(self._items)


class _Indexed:
    """Objects by their `index`, each member as the texts that it came in."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, list[str]]] = {}

    def feed(self, piece: str) -> bool:
        found = []
        for item in split_array(piece):
            members = split_object(item) if item[:1] == "{" else {}
            index = members.get("index")
            if index is None:
                return False
            found.append((index, members))
        for index, members in found:
            _feed_object(self._objects.setdefault(index, {}), members)
        return True

    def text(self) -> str:
        return join_array(
            [join_object({name: _joined(texts) for name, texts in each.items()}) for each in self._objects.values()]
        )


def _merged(name: str, before: str | _Array, piece: str) -> str | _Array:
    """An array and the next piece of it, or what comes in its place; an empty one takes nothing away."""
    if not split_array(piece):
        return before
    if not isinstance(before, str):
        return before if before.feed(piece) else piece
    array = _List() if name == "annotations" else _Indexed()
    return array if array.feed(before) and array.feed(piece) else piece


def _feed_object(known: dict[str, list[str]], members: Mapping[str, str]) -> None:
    for name, value in members.items():
        before = known.get(name)
        if name in _IN_PIECES and before is not None and before[0][:1] == '"' and value[:1] == '"':
            before.append(value)
        elif value != "null" or before is None:
            known[name] = [value]


def _joined(texts: list[str]) -> str:
    """ASCII where there are several: halves of a pair may come apart."""
    return texts[0] if len(texts) == 1 else json.dumps("".join(map(value_of, texts)))

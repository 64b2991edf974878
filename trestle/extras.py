"""Members that the contract does not name, folded from the pieces of one answer, verbatim.

The last value of a member wins; an array of objects with an `index` merges by index, where texts that come in pieces
(`text`, `summary`, `data`, `arguments`, `thinking`) are concatenated; `annotations` are concatenated. Each piece is
read once, however many there are: what they come to is written at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Protocol

from trestle.rawjson import join_array, join_object, split_array, split_object, value_of

_IN_PIECES: Final = frozenset({"text", "summary", "data", "arguments", "thinking"})


class Extras(dict[str, str]):
    """Verbatim JSON by member. An array that came in several pieces is whole once it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self._arrays: dict[str, _Array] = {}

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
            if value[:1] != "[" or self.get(name, "")[:1] != "[" or not self._goes_on(name, value):
                self[name] = value
                self._arrays.pop(name, None)

    def close(self) -> None:
        """All pieces have come."""
        for name, array in self._arrays.items():
            self[name] = array.text()
        self._arrays.clear()

    def _goes_on(self, name: str, piece: str) -> bool:
        """Whether an array goes on with this piece; an empty one takes nothing away."""
        if not split_array(piece):
            return True
        array = self._arrays.get(name)
        if array is None:
            array = _List() if name == "annotations" else _Indexed()
            if not split_array(self[name]) or not array.feed(self[name]):
                return False
            self._arrays[name] = array
        return array.feed(piece)


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

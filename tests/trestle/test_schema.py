"""The JSON Schema of settings: every struct with the words for all of its keys."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from trestle.schema import schema


class Plain(msgspec.Struct):
    """One.

    a: the first.
    """

    a: int = 1


class More(Plain):
    """b: the second."""

    b: dict[str, list[Plain | None]] = {}


class Silent(More):
    c: tuple[More, ...] = ()


def test_a_struct_is_described_with_what_it_takes_over() -> None:
    definitions: dict[str, Any] = json.loads(schema(Silent))["$defs"]
    assert {name: each.get("description") for name, each in definitions.items()} == {
        "Plain": "One.\n\na: the first.",
        "More": "One.\n\na: the first.\n\nb: the second.",
        "Silent": "One.\n\na: the first.\n\nb: the second.",
    }
    assert definitions["Silent"]["properties"].keys() == {"a", "b", "c"}


def test_a_struct_without_words_has_none() -> None:
    mute = msgspec.defstruct("Mute", [("x", int, 0)])
    assert "description" not in json.loads(schema(mute))["$defs"]["Mute"]

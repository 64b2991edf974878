"""Calls whose arguments come in pieces, as Vertex AI sends them to who asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gemini import answer, chat, decode, events, fold

Object = dict[str, Any]


def begun(name: str = "f", **members: Any) -> Object:
    return {"functionCall": {"name": name, "willContinue": True}, **members}


def piece(path: str, last: bool = False, **value: Any) -> Object:
    call: Object = {"partialArgs": [{"jsonPath": path, **value}], "willContinue": True}
    if last:
        del call["willContinue"]
    return {"functionCall": call}


END: Object = {"functionCall": {}}


def called(*parts: Object, together: bool = False, finish: str = "STOP") -> list[tuple[str, str]]:
    """Name and arguments of each call of a stream of these parts, each in an event of its own or all in one."""
    found = [answer(*parts, finish=None)] if together else [answer(part, finish=None) for part in parts]
    choice = fold(decode([events(*found, answer(finish=finish))], chat(stream=True))).choices[0]
    return [(call.name, call.arguments) for _, call in sorted(choice.calls.items())]


@pytest.mark.parametrize("together", [False, True])
def test_values_of_every_kind(together: bool) -> None:
    parts = [
        begun(),
        piece("$.city", stringValue="Par", willContinue=True),
        piece("$.city", stringValue="is"),
        piece("$.days", numberValue=2.50),
        piece("$.exact", boolValue=True),
        piece("$.unit", nullValue="NULL_VALUE"),
        piece("$.near[0].name", stringValue="A"),
        piece("$.near[1].name", stringValue="B"),
        piece("$['odd name'][\"x\"]", stringValue="C"),
        END,
    ]
    ((name, arguments),) = called(*parts, together=together)
    assert name == "f"
    assert json.loads(arguments) == {
        "city": "Paris",
        "days": 2.5,
        "exact": True,
        "unit": None,
        "near": [{"name": "A"}, {"name": "B"}],
        "odd name": {"x": "C"},
    }


def test_numbers_are_as_they_were_written() -> None:
    whole = {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a", "numberValue": 12345678901234567890}]}}
    assert called(whole) == [("f", '{"a":12345678901234567890}')]


def test_arguments_that_are_there_already() -> None:
    first = {"functionCall": {"name": "f", "args": {"a": 1.0}, "willContinue": True}}
    assert called(first, piece("$.b", last=True, boolValue=True)) == [("f", '{"a":1.0,"b":true}')]


def test_one_after_the_other() -> None:
    parts = [begun("f"), piece("$.a", last=True, stringValue="x"), begun("g"), END]
    assert called(*parts) == [("f", '{"a":"x"}'), ("g", "{}")]


def test_the_next_name_ends_the_one_before() -> None:
    parts = [begun("f"), piece("$.a", stringValue="x"), {"functionCall": {"name": "g", "args": {"b": 1}}}]
    assert called(*parts) == [("f", '{"a":"x"}'), ("g", '{"b":1}')]


def test_cut_by_the_limit() -> None:
    assert called(begun(), piece("$.a", stringValue="x"), finish="MAX_TOKENS") == [("f", '{"a":"x"}')]


def test_the_seal_and_the_id_of_the_first_piece() -> None:
    first = begun(thoughtSignature="MQ==")
    first["functionCall"]["id"] = "c1"
    data = events(answer(first, piece("$.a", last=True, stringValue="x")))
    call = fold(decode([data], chat(stream=True))).choices[0].calls[0]
    assert (call.id, call.signature, call.extra, call.function_extra) == ("c1", "MQ==", {}, {})


@pytest.mark.parametrize("path", ["", "$", "a", "$..a", "$[0]", "$.a[", "$.a[99999999]", "@.a"])
def test_a_path_of_another_kind_is_a_name(path: str) -> None:
    ((_, arguments),) = called(begun(), piece(path, stringValue="x"), END)
    assert json.loads(arguments) == {path: "x"}


def test_paths_that_do_not_go_together() -> None:
    parts = [begun(), piece("$.a", stringValue="x"), piece("$.a.b", stringValue="y"), piece("$.c[2]", boolValue=False)]
    ((_, arguments),) = called(*parts, END)
    assert json.loads(arguments) == {"a": {"b": "y"}, "c": [None, None, False]}

"""Values made from schemas: valid ones, or an error that says so."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from trestle.errors import CallError, Reason
from worker.families.echo.instance import instance_of
from worker.families.echo.pattern import example

TEXT = "Hello, bridge"


def made(schema: Any, text: str = TEXT) -> Any:
    """A value for it, which is valid."""
    value = json.loads(instance_of(json.dumps(schema).encode(), text, "schema"))
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(value)
    return value


def refused(schema: Any) -> Reason:
    with pytest.raises(CallError) as caught:
        instance_of(json.dumps(schema).encode(), TEXT, "schema")
    assert caught.value.param == "schema"
    return caught.value.reason


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (True, TEXT),
        ({}, TEXT),
        ({"type": "string"}, TEXT),
        ({"type": "string", "maxLength": 5}, "Hello"),
        ({"minLength": 20, "maxLength": 20, "type": "string"}, "Hello, bridge Hello,"),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"const": {"a": [1.5]}}, {"a": [1.5]}),
        ({"enum": [False, "x"]}, False),
        ({"enum": [1, "x", "yy"], "type": "string", "minLength": 2}, "yy"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 7.5}, 8),
        ({"type": "integer", "exclusiveMinimum": 7}, 8),
        ({"type": "integer", "maximum": -3.5}, -4),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "integer", "multipleOf": 1.5}, 3),
        ({"type": "number", "multipleOf": 0.1, "minimum": 0.25}, 1),
        ({"type": "number", "multipleOf": 0.1, "maximum": 0.25}, 0.2),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 0.5}, 0.25),
        ({"minimum": 10**30}, 10**30),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "array"}, [TEXT]),
        ({"type": "array", "maxItems": 0}, []),
        ({"items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3, "uniqueItems": True}, [1, 2, 3]),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "uniqueItems": True}, [True, False]),
        ({"type": "array", "items": {"enum": [4, 5]}, "minItems": 2, "uniqueItems": True}, [4, 5]),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True}, [TEXT, f"{TEXT} 1"]),
        ({"prefixItems": [{"type": "integer"}, {"type": "null"}], "items": False}, [1, None]),
        ({"type": "array", "contains": {"const": 7}}, [7]),
        ({"type": "array", "contains": {"const": 7}, "minContains": 2}, [7, 7]),
        ({"type": "object"}, {}),
        ({"properties": {"a": {"type": "integer"}}}, {"a": 1}),
        ({"properties": {"a": False, "b": {"type": "null"}}}, {"b": None}),
        ({"required": ["z"], "additionalProperties": {"type": "integer"}}, {"z": 1}),
        ({"type": "object", "minProperties": 2, "additionalProperties": {"const": 0}}, {"member0": 0, "member1": 0}),
        ({"type": "object", "minProperties": 1, "propertyNames": {"enum": ["x", "y"]}}, {"x": TEXT}),
        ({"properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["b"], "maxProperties": 1}, {"b": 2}),
        ({"properties": {"a": {"const": 1}}, "dependentRequired": {"a": ["b"]}}, {"a": 1, "b": TEXT}),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"anyOf": [False, {"type": "integer"}]}, 1),
        ({"oneOf": [{"type": "integer"}, {"type": "number", "minimum": 0.5}]}, 0),
        ({"oneOf": [{"multipleOf": 2}, {"multipleOf": 3}], "type": "integer", "minimum": 6}, 8),
        ({"allOf": [{"type": "integer", "minimum": 3}, {"type": "number", "maximum": 9}, {"minimum": 5}]}, 5),
        ({"allOf": [{"enum": [1, 2, 3]}, {"enum": [3, 2]}]}, 2),
        ({"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"}, 12),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}}, {"properties": {"a": {"minimum": 4}}}]},
            {"a": 4},
        ),
        ({"not": {"type": "string"}}, 1),
        ({"type": "integer", "not": {"const": 1}}, 2),
        (
            {"properties": {"a": {"const": 1}}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
            {"a": 1, "b": TEXT},
        ),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "integer"}}}, 1),
        ({"$ref": "#/$defs/a", "minimum": 4, "$defs": {"a": {"type": "integer"}}}, 4),
        ({"$defs": {"x": {"prefixItems": [{"type": "null"}]}}, "$ref": "#/$defs/x/prefixItems/0"}, None),
        ({"type": "integer", "minimum": -5, "maximum": -3}, -3),
        ({"properties": {"a": False, "b": {"const": 1}}, "type": "object"}, {"b": 1}),
        ({"allOf": [{"items": {"type": "integer"}}, {"items": {"minimum": 4}}], "minItems": 1, "type": "array"}, [4]),
        ({"not": {"type": "array"}, "type": ["array", "null"]}, None),
        ({"type": "array", "items": {"const": 1}, "not": {"minItems": 1}}, []),
        ({"type": "number", "not": {"type": "integer"}}, 1.5),
        ({"type": "string", "pattern": "^[A-Z]{2}-\\d+$"}, "AA-0"),
        ({"type": "string", "pattern": "^[a-z]+$", "minLength": 4}, "aaaaa"),
    ],
)
def test_the_value(schema: Any, value: Any) -> None:
    found = made(schema)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "name",
    [
        "date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid",
        "regex", "json-pointer",
    ],
)  # fmt: skip
def test_formats(name: str) -> None:
    assert made({"type": "string", "format": name}) != TEXT


@pytest.mark.parametrize(
    ("more", "value"),
    [({"additionalItems": {"const": 2}}, [1, 2, 2]), ({"additionalItems": {"type": "null"}}, [1, None, None])],
)
def test_items_in_the_way_of_the_older_drafts(more: Any, value: Any) -> None:
    schema = {"type": "array", "items": [{"const": 1}], "minItems": 3, **more}
    found = json.loads(instance_of(json.dumps(schema).encode(), TEXT, "schema"))
    Draft7Validator(schema).validate(found)
    assert found == value


def test_an_unknown_format_is_free() -> None:
    assert made({"type": "string", "format": "phone"}) == TEXT


class TestRecursion:
    def test_ends_where_it_may(self) -> None:
        node = {
            "type": "object",
            "properties": {"v": {"type": "string"}, "next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
            "required": ["v", "next"],
        }
        found, depth = made({"$ref": "#/$defs/n", "$defs": {"n": node}}), 0
        while found["next"] is not None:
            found, depth = found["next"], depth + 1
        assert 0 < depth < 10

    def test_ends_by_the_way_around(self) -> None:
        """Both alternatives are references, and only one of them leads out."""
        leaf = {"type": "object", "properties": {"end": {"const": True}}, "required": ["end"]}
        tree = {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/any"}, "right": {"$ref": "#/$defs/any"}},
            "required": ["left", "right"],
        }
        either = {"anyOf": [{"$ref": "#/$defs/tree"}, {"$ref": "#/$defs/leaf"}]}
        assert made({"$ref": "#/$defs/any", "$defs": {"any": either, "tree": tree, "leaf": leaf}})["left"]

    def test_of_lists(self) -> None:
        schema = {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}}
        assert made({**schema, "required": ["kids"]})["kids"]

    @pytest.mark.parametrize(
        "schema",
        [
            {"$ref": "#"},
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
            {"anyOf": [{"$ref": "#"}]},
        ],
    )
    def test_without_an_end(self, schema: Any) -> None:
        assert refused(schema) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "integer", "minimum": 1.2, "maximum": 1.8},
        {"enum": []},
        {"type": "object", "required": ["a"], "properties": {"a": False}},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#/$defs/nobody"},
        {"type": "string", "pattern": "(?=x)y"},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": 5000, "uniqueItems": True},
        {"type": "object", "minProperties": 1, "patternProperties": {"^a$": {}}},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"allOf": [{"type": "string", "pattern": "^a$"}, {"pattern": "^b$"}]},
    ],
)
def test_no_value_is_found(schema: Any) -> None:
    assert refused(schema) is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    "schema",
    [5, "x", None, {"type": "thing"}, {"type": 5}, {"properties": []}, {"required": 3}, {"minimum": "a"}, {"enum": 4}],
)
def test_no_schema(schema: Any) -> None:
    assert refused({"type": "array", "items": schema, "minItems": 1}) is Reason.INVALID_REQUEST


@pytest.mark.parametrize("data", [b"{", b"\xff", b"nonsense", b'{"a": NaN}'])
def test_no_json(data: bytes) -> None:
    with pytest.raises(CallError) as caught:
        instance_of(data, TEXT, "schema")
    assert caught.value.reason is Reason.INVALID_REQUEST


def test_nested_beyond_reading() -> None:
    deep = b'{"items":' * 5000 + b"{}" + b"}" * 5000
    with pytest.raises(CallError) as caught:
        instance_of(deep, TEXT, "schema")
    assert caught.value.reason in (Reason.INVALID_REQUEST, Reason.UNSUPPORTED)


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["a", "bb", ""]))


def _strings(draw: Any) -> dict[str, Any]:
    low, high = draw(st.integers(0, 6)), draw(st.integers(0, 30))
    schema: dict[str, Any] = {"type": "string"}
    if draw(st.booleans()):
        schema["minLength"] = low
    if draw(st.booleans()):
        schema["maxLength"] = low + high
    return schema


def _numbers(draw: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": draw(st.sampled_from(["integer", "number"]))}
    low = draw(st.integers(-20, 20))
    words = {
        "minimum": low,
        "exclusiveMinimum": low - 1,
        "maximum": low + draw(st.integers(6, 30)),
        "exclusiveMaximum": low + draw(st.integers(7, 30)),
        "multipleOf": draw(st.sampled_from([1, 2, 3, 0.5, 0.25])),
    }
    return schema | {name: value for name, value in words.items() if draw(st.booleans())}


def _objects(draw: Any, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    properties = draw(st.dictionaries(st.sampled_from("abcd"), inner, max_size=3))
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    schema["required"] = draw(st.lists(st.sampled_from(sorted(properties)), unique=True)) if properties else []
    if draw(st.booleans()):
        schema["additionalProperties"] = draw(st.one_of(st.just(False), inner))
    return schema


def _arrays(draw: Any, inner: st.SearchStrategy[Any]) -> dict[str, Any]:
    least = draw(st.integers(0, 3))
    return {"type": "array", "items": draw(inner), "minItems": least, "maxItems": least + draw(st.integers(0, 2))}


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        st.composite(_objects)(inner),
        st.composite(_arrays)(inner),
        st.builds(lambda each: {"anyOf": each}, several),
        st.builds(lambda each: {"allOf": [each, {"title": "x"}]}, inner),
        st.builds(lambda one, two: {"oneOf": [{"type": "array", "items": one}, two]}, inner, st.just({"type": "null"})),
    )


SATISFIABLE = st.recursive(
    st.one_of(
        st.composite(_strings)(),
        st.composite(_numbers)(),
        st.builds(lambda value: {"const": value}, _SCALARS),
        st.builds(lambda values: {"enum": values}, st.lists(_SCALARS, min_size=1)),
        st.just({"type": "boolean"}),
        st.just({"type": ["string", "null"]}),
        st.just({}),
    ),
    _deeper,
    max_leaves=8,
)


@given(SATISFIABLE, st.text("ab ü", max_size=20))
def test_a_schema_that_can_be_satisfied_is(schema: Any, text: str) -> None:
    Draft202012Validator.check_schema(schema)
    made(schema, text)


_WORDS = """
type enum const properties required items anyOf oneOf allOf not if then $ref minimum maximum multipleOf minLength
maxLength format minItems maxItems uniqueItems contains additionalProperties minProperties propertyNames
dependentRequired $defs
"""
_KEYS = st.sampled_from(_WORDS.split())
_ANYTHING = st.recursive(
    st.one_of(_SCALARS, st.sampled_from(["string", "object", "array", "integer", "#", "#/$defs/a", 0.5, 10**40])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)),
    max_leaves=20,
)


@given(st.dictionaries(_KEYS, _ANYTHING, max_size=5))
def test_whatever_is_sent_as_a_schema(schema: Any) -> None:
    """Valid, or refused; never anything else."""
    try:
        value = json.loads(instance_of(json.dumps(schema).encode(), TEXT, "schema"))
    except CallError as error:
        assert error.reason in (Reason.INVALID_REQUEST, Reason.UNSUPPORTED)  # noqa: PT017 (either outcome is right)
        return
    if Draft202012Validator(Draft202012Validator.META_SCHEMA).is_valid(schema):
        Draft202012Validator(schema).validate(value)


class TestPatterns:
    @pytest.mark.parametrize(
        ("pattern", "least", "text"),
        [
            ("", 0, ""),
            ("abc", 0, "abc"),
            ("^[A-Z]{2}\\d{4}$", 0, "AA0000"),
            ("^\\+?[1-9]\\d{1,14}$", 5, None),
            ("^(foo|bar)$", 0, "foo"),
            ("^(?:(?P<x>a)|b)+$", 2, None),
            ("^#[0-9a-fA-F]{6}$", 0, "#000000"),
            ("^[^a-z@]$", 0, "A"),
            ("[]a-]", 0, "]"),
            ("[\\]\\d-]", 0, "]"),
            ("^\\w+([.-]?\\w+)*@\\w+(\\.\\w{2,3})+$", 0, "a@a.aa"),
            ("^\\S+ \\S+$", 10, None),
            ("^.*?x{0,2}$", 3, None),
            ("^\\u00e4\\x41\\n\\.$", 0, "äA\n."),
            ("^a{2,}$", 5, None),
            ("^[+-]?$", 1, "+"),
            ("a{b", 0, "a{b"),
        ],
    )
    def test_an_example(self, pattern: str, least: int, text: str | None) -> None:
        found = example(pattern, least)
        assert found is not None
        assert re.search(pattern, found)
        assert len(found) >= least
        assert text is None or found == text

    @pytest.mark.parametrize(
        "pattern",
        ["(?=x)x", "(?<!x)y", "(a)\\1", "\\bword", "\\p{L}", "[z-a]", "[", "(", "a)", "*", "a{9999999}", "a^b", "a$b",
         "\\", "(a{999}){999}", "[^ -~\\d\\w\\s]", "\\ud800", "(" * 5000],
    )  # fmt: skip
    def test_beyond_it(self, pattern: str) -> None:
        assert example(pattern) is None

    def test_too_short(self) -> None:
        assert example("^ab$", 3) is None

    @given(st.text("ab[](){}*+?|^$\\d-.1,", max_size=12))
    def test_whatever_is_sent_as_one(self, pattern: str) -> None:
        found = example(pattern)
        assert found is None or isinstance(found, str)

    @given(
        st.from_regex(r"([a-c]|\[[a-c]-[x-z]\]|\\d|\(a\|b\))([*+?]|\{[1-3]\}|\{1,4\})?", fullmatch=True),
        st.integers(0, 3),
    )
    def test_an_example_fits(self, pattern: str, least: int) -> None:
        found = example(f"^{pattern}$", least)
        assert found is None or (re.fullmatch(pattern, found) and least <= len(found) < math.inf)

"""Answers in JSON: by the model's own structured outputs, or by a tool whose input is the answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.anthropic import chat, decode, encoded, fold, ignored, message, sent, streamed

from trestle.errors import CallError
from trestle.v1 import chat_pb2
from worker.families.anthropic.plan import JSON_TOOL
from worker.families.anthropic.schema import native_schema

Object = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
OPEN = {"type": "object", "additionalProperties": {"type": "string"}}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
OLD = "claude-3-5-haiku-20241022"


def wanted(schema: Object | None = SCHEMA, **members: Any) -> Object:
    inner = {"name": "answer", **members, **({"schema": schema} if schema is not None else {})}
    return {"response_format": {"type": "json_schema", "json_schema": inner}}


def json_object() -> Object:
    return {"response_format": {"type": "json_object"}}


class TestNative:
    def test_the_schema_is_closed(self) -> None:
        body = sent(**wanted(strict=True))
        assert body["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
        assert "tools" not in body

    def test_stands_beside_tools_and_effort(self) -> None:
        body = sent("claude-opus-4-6", tools=TOOLS, reasoning_effort="low", **wanted())
        assert body["output_config"].keys() == {"effort", "format"}
        assert [tool["name"] for tool in body["tools"]] == ["f"]

    def test_the_clients_own_words_win(self) -> None:
        own = {"format": {"type": "json_schema", "schema": {**CLOSED, "title": "Own"}}, "effort": "max"}
        assert sent("claude-opus-4-6", reasoning_effort="low", output_config=own)["output_config"] == own

    @pytest.mark.parametrize(
        ("schema", "native"),
        [
            ({**SCHEMA, "$schema": "https://json-schema.org/draft/2020-12/schema"}, CLOSED),
            (
                {"type": "object", "properties": {"s": {"type": "string", "minLength": 2, "description": "S"}}},
                {
                    "type": "object",
                    "properties": {"s": {"type": "string", "description": 'S\n\n{"minLength":2}'}},
                    "additionalProperties": False,
                },
            ),
            (
                {"type": "object", "properties": {"x": {"oneOf": [{"type": "string"}, {"type": "null"}]}}},
                {
                    "type": "object",
                    "properties": {"x": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                    "additionalProperties": False,
                },
            ),
            (
                {
                    "type": "object",
                    "properties": {"x": {"$ref": "#/$defs/x"}},
                    "$defs": {"x": {"type": "array", "items": SCHEMA, "minItems": 1}},
                },
                {
                    "type": "object",
                    "properties": {"x": {"$ref": "#/$defs/x"}},
                    "$defs": {"x": {"type": "array", "items": CLOSED, "minItems": 1}},
                    "additionalProperties": False,
                },
            ),
            ({"type": "array", "items": SCHEMA}, None),
            (OPEN, None),
            ({"type": "object"}, None),
            ({"type": "object", "properties": {"x": True}}, None),
            ({"type": "object", "properties": {"x": {"$ref": "#"}}}, None),
            ({"type": "object", "properties": {"x": {"type": "array", "items": {"$ref": "#/properties/x"}}}}, None),
            (
                {
                    "type": "object",
                    "properties": {"x": {"$ref": "#/$defs/a"}},
                    "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"$ref": "#/$defs/a"}},
                },
                None,
            ),
        ],
    )
    def test_what_can_be_said(self, schema: Object, native: Object | None) -> None:
        found = native_schema(json.dumps(schema).encode())
        assert (None if found is None else json.loads(found)) == native


def several(count: int, **member: Any) -> Object:
    """A schema with so many members alike."""
    return {"type": "object", "properties": {f"m{i}": member for i in range(count)}}


def required(schema: Object) -> Object:
    return {**schema, "required": list(schema["properties"])}


class TestRoom:
    """The API refuses requests with more than 20 strict tools, and with more than 24 optional members or 16 members of
    several types in all of their schemas together."""

    MAYBE = ("string", "null")

    @pytest.mark.parametrize(
        ("schema", "native"),
        [
            (several(24, type="string"), True),
            (several(25, type="string"), False),
            (required(several(25, type="string")), True),
            (required(several(16, type=MAYBE)), True),
            (required(several(17, type=MAYBE)), False),
            (required(several(17, anyOf=[{"type": "string"}, {"type": "null"}])), False),
        ],
    )
    def test_for_an_answer(self, schema: Object, native: bool) -> None:
        body = sent(**wanted(schema))
        assert ("output_config" in body, "tools" in body) == (native, not native)

    def test_for_tools(self) -> None:
        def tool(name: str, schema: Object) -> Object:
            return {"type": "function", "function": {"name": name, "parameters": schema, "strict": True}}

        named = [tool(f"t{i}", required(several(1, type="string"))) for i in range(21)]
        request = chat(tools=named)
        assert [tool.get("strict", False) for tool in encoded(request)["tools"]] == [True] * 20 + [False]
        assert ignored(request) == ["tools[].function.strict"]

        open_ones = [tool("a", several(20, type="string")), tool("b", several(5, type="string")), tool("c", CLOSED)]
        request = chat(tools=open_ones, **wanted(several(1, type="string")))
        body = encoded(request)
        assert [tool.get("strict", False) for tool in body["tools"]] == [True, False, True]
        assert body["tools"][1]["input_schema"] == open_ones[1]["function"]["parameters"]
        assert ignored(request) == ["tools[].function.strict"]


class TestByTool:
    @pytest.mark.parametrize(
        ("members", "schema"),
        [
            ({"model": OLD, **wanted()}, SCHEMA),
            (wanted(OPEN), OPEN),
            (wanted(None), {"type": "object", "additionalProperties": True}),
            (json_object(), {"type": "object", "additionalProperties": True}),
        ],
    )
    def test_is_forced(self, members: Object, schema: Object) -> None:
        body = sent(**members)
        (tool,) = body["tools"]
        assert (tool["name"], tool["input_schema"]) == (JSON_TOOL, schema)
        assert body["tool_choice"] == {"type": "tool", "name": JSON_TOOL, "disable_parallel_tool_use": True}

    def test_the_clients_tools_may_be_called_first(self) -> None:
        body = sent(tools=TOOLS, **json_object())
        assert [tool["name"] for tool in body["tools"]] == ["f", JSON_TOOL]
        assert body["tool_choice"] == {"type": "any"}

    def test_unless_none_may_or_one_must(self) -> None:
        assert [t["name"] for t in sent(tools=TOOLS, tool_choice="none", **json_object())["tools"]] == [JSON_TOOL]
        assert [t["name"] for t in sent(tools=TOOLS, tool_choice="required", **json_object())["tools"]] == ["f"]

    def test_its_name_is_nobodys(self) -> None:
        tools = [{"type": "function", "function": {"name": JSON_TOOL}}]
        assert [tool["name"] for tool in sent(tools=tools, **json_object())["tools"]] == [JSON_TOOL, JSON_TOOL + "_"]

    def test_is_asked_for_where_it_cannot_be_forced(self) -> None:
        body = sent("claude-opus-5-5", **json_object())
        assert (len(body["tools"]), body["tool_choice"]) == (1, {"type": "auto"})

    def test_an_unknown_format_is_named(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(response_format={"type": "grammar"}))
        assert caught.value.param == "response_format"


ANSWER = {"type": "tool_use", "id": "toolu_1", "name": JSON_TOOL, "input": {"a": [1, "ä"]}}
CALL = {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {"n": 1}}
PREFACE = {"type": "text", "text": "Here it is:"}


@pytest.mark.parametrize("stream", [True, False])
class TestAnswersByTool:
    def fold(self, stream: bool, *content: Object, stop: str = "tool_use") -> Any:
        whole = message(*content, stop=stop)
        data = streamed(whole) if stream else json.dumps(whole).encode()
        return fold(decode([data], chat(tools=TOOLS, stream=stream, **json_object()))).choices[0]

    def test_the_input_is_the_content(self, stream: bool) -> None:
        choice = self.fold(stream, ANSWER)
        assert (json.loads(choice.text), choice.calls) == ({"a": [1, "ä"]}, {})
        assert (choice.finish.reason, choice.finish.upstream_reason) == (chat_pb2.FINISH_REASON_STOP, "tool_use")

    def test_what_stands_beside_it_is_kept_beside_it(self, stream: bool) -> None:
        choice = self.fold(stream, PREFACE, ANSWER)
        assert json.loads(choice.text) == {"a": [1, "ä"]}
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 0, **PREFACE}]

    def test_text_alone_is_the_content(self, stream: bool) -> None:
        assert self.fold(stream, PREFACE, stop="end_turn").text == "Here it is:"

    def test_a_call_of_the_clients_is_a_call(self, stream: bool) -> None:
        choice = self.fold(stream, CALL)
        assert [call.name for call in choice.calls.values()] == ["f"]
        assert choice.finish.reason == chat_pb2.FINISH_REASON_TOOL_CALLS

    def test_there_is_one_answer(self, stream: bool) -> None:
        choice = self.fold(stream, ANSWER, {**ANSWER, "id": "toolu_9"})
        assert json.loads(choice.text) == {"a": [1, "ä"]}
        assert [block["id"] for block in json.loads(choice.delta_extra["content_blocks"])] == ["toolu_9"]

    def test_a_cut_answer_says_so(self, stream: bool) -> None:
        assert self.fold(stream, ANSWER, stop="max_tokens").finish.reason == chat_pb2.FINISH_REASON_LENGTH

"""Tools and the choice among them, and the calls that come back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.anthropic import chat, decode, encoded, fold, ignored, message, sent, streamed

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

Object = dict[str, Any]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 3}}, "required": ["n"]}
CACHE = {"type": "ephemeral"}


def function(name: str = "f", **members: Any) -> Object:
    return {"type": "function", "function": {"name": name, **members}}


def custom(**members: Any) -> Object:
    return {"type": "custom", "custom": {"name": "run", **members}}


class TestTools:
    def test_a_schema_goes_on_as_it_is(self) -> None:
        (tool,) = sent(tools=[function(description="D", parameters=SCHEMA)])["tools"]
        assert tool == {"name": "f", "description": "D", "input_schema": SCHEMA}

    @pytest.mark.parametrize("members", [{}, {"parameters": {}}, {"parameters": None}])
    def test_no_parameters_are_an_object(self, members: Object) -> None:
        assert sent(tools=[function(**members)])["tools"][0]["input_schema"] == {"type": "object"}

    def test_parameters_of_another_type_are_named(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(tools=[function(), function(parameters={"type": "string"})]))
        assert caught.value.param == "tools[1].function.parameters"

    def test_strict_where_the_model_has_it(self) -> None:
        tools = [function(parameters=SCHEMA, strict=True)]
        (tool,) = sent(tools=tools)["tools"]
        assert tool["strict"] is True
        assert tool["input_schema"] == {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": '{"maximum":3}'}},
            "required": ["n"],
            "additionalProperties": False,
        }
        old = chat("claude-3-5-haiku-20241022", tools=tools)
        assert encoded(old)["tools"] == [{"name": "f", "input_schema": SCHEMA}]
        assert ignored(old) == ["tools[].function.strict"]

    def test_hints_go_on_and_others_are_named(self) -> None:
        request = chat(tools=[{**function(input_examples=[{}], wings=2), "cache_control": CACHE, "size": 1}])
        (tool,) = encoded(request)["tools"]
        assert (tool["cache_control"], tool["input_examples"]) == (CACHE, [{}])
        assert ignored(request) == ["tools[].function.wings", "tools[].size"]

    @pytest.mark.parametrize(
        "tool",
        [
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 1},
            {"type": "custom", "name": "own", "input_schema": {"type": "object"}},
        ],
    )
    def test_anthropics_own_go_on(self, tool: Object) -> None:
        assert sent(tools=[function(), tool])["tools"][1] == tool

    @pytest.mark.parametrize("kind", ["web_search_preview", "file_search", "magic"])
    def test_other_vendors_are_named(self, kind: str) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(tools=[{"type": kind}]))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "tools[0]")
        assert kind in caught.value.message

    def test_web_search_options_are_a_tool(self) -> None:
        near = {"type": "approximate", "approximate": {"city": "Wien", "country": "AT"}}
        request = chat(web_search_options={"user_location": near, "search_context_size": "high"})
        (tool,) = encoded(request)["tools"]
        location = {"type": "approximate", "city": "Wien", "country": "AT"}
        assert tool == {"type": "web_search_20250305", "name": "web_search", "user_location": location}
        assert ignored(request) == ["web_search_options.search_context_size"]

    def test_earlier_calls_keep_their_tools(self) -> None:
        """The API wants them defined, though none may be called now."""
        calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
        messages = [
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": "done"},
        ]
        body = sent(messages=messages)
        assert (body["tools"], body["tool_choice"]) == (
            [{"name": "f", "input_schema": {"type": "object"}}],
            {"type": "none"},
        )


    @pytest.mark.parametrize(
        ("tool", "param"),
        [
            (chat_pb2.Tool(function=chat_pb2.FunctionTool()), "tools[0].function.name"),
            (chat_pb2.Tool(other_json=b'{"type":"custom","custom":{}}'), "tools[0].custom.name"),
            (chat_pb2.Tool(other_json=b'{"type":"custom","custom":1}'), "tools"),
        ],
    )
    def test_a_tool_without_a_name_is_named(self, tool: chat_pb2.Tool, param: str) -> None:
        """As direct callers may send it."""
        request = chat()
        request.tools.append(tool)
        with pytest.raises(CallError) as caught:
            encoded(request)
        assert (caught.value.reason, caught.value.param) == (Reason.INVALID_REQUEST, param)

    def test_strict_where_a_schema_cannot_say_so(self) -> None:
        """An object that is open to any member cannot be closed: it goes on as it is."""
        open_one = {"type": "object", "properties": {"n": {"type": "object"}}}
        (tool,) = sent(tools=[function(parameters=open_one, strict=True)])["tools"]
        assert tool == {"name": "f", "input_schema": open_one}


class TestChoice:
    @pytest.mark.parametrize(
        ("asked", "choice"),
        [
            ("auto", {"type": "auto"}),
            ("none", {"type": "none"}),
            ("required", {"type": "any"}),
            ({"type": "function", "function": {"name": "f"}}, {"type": "tool", "name": "f"}),
            ({"type": "custom", "custom": {"name": "f"}}, {"type": "tool", "name": "f"}),
            ({"type": "any", "disable_parallel_tool_use": True}, {"type": "any", "disable_parallel_tool_use": True}),
        ],
    )
    def test_in_anthropics_words(self, asked: Any, choice: Object) -> None:
        assert sent(tools=[function()], tool_choice=asked)["tool_choice"] == choice
        assert "tool_choice" not in sent(tool_choice="auto"), "there is nothing to choose from"

    def test_some_tools_and_no_others(self) -> None:
        allowed = {"mode": "required", "tools": [function("g")]}
        body = sent(
            tools=[function("f"), function("g")], tool_choice={"type": "allowed_tools", "allowed_tools": allowed}
        )
        assert [tool["name"] for tool in body["tools"]] == ["g"]
        assert body["tool_choice"] == {"type": "any"}

    @pytest.mark.parametrize("listed", [{}, 1, [1], "f"])
    def test_some_tools_that_are_no_list_are_named(self, listed: Any) -> None:
        choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": listed}}
        with pytest.raises(CallError) as caught:
            encoded(chat(tools=[function()], tool_choice=choice))
        assert caught.value.param == "tool_choice.allowed_tools.tools"

    def test_a_custom_tool_by_its_name(self) -> None:
        choice = {"type": "custom", "custom": {"name": "run"}}
        assert sent(tools=[custom()], tool_choice=choice)["tool_choice"] == {"type": "tool", "name": "run"}

    def test_an_unknown_one_is_named(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(tools=[function()], tool_choice={"type": "magic"}))
        assert caught.value.param == "tool_choice"

    @pytest.mark.parametrize(
        ("asked", "choice"),
        [
            ({}, {"type": "auto", "disable_parallel_tool_use": True}),
            ({"tool_choice": "required"}, {"type": "any", "disable_parallel_tool_use": True}),
            ({"tool_choice": "none"}, {"type": "none"}),
        ],
    )
    def test_one_call_at_a_time(self, asked: Object, choice: Object) -> None:
        assert sent(tools=[function()], parallel_tool_calls=False, **asked)["tool_choice"] == choice
        assert "tool_choice" not in sent(tools=[function()], parallel_tool_calls=True)

    @pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-sonnet-5-5", "claude-fable-5-1"])
    def test_is_free_where_the_model_cannot_be_forced(self, model: str) -> None:
        request = chat(model, tools=[function()], tool_choice="required")
        assert encoded(request)["tool_choice"] == {"type": "auto"}
        assert ignored(request) == ["tool_choice"]


class TestLegacyFunctions:
    def test_are_tools_of_which_one_is_called(self) -> None:
        body = sent(functions=[{"name": "f", "parameters": SCHEMA}], function_call={"name": "f"})
        assert body["tools"] == [{"name": "f", "input_schema": SCHEMA}]
        assert body["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}

    @pytest.mark.parametrize("stream", [True, False])
    def test_calls_come_back_in_their_form(self, stream: bool) -> None:
        one = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"n": 1}}
        two = {"type": "tool_use", "id": "toolu_2", "name": "f", "input": {"n": 2}}
        whole = message(one, two, stop="tool_use")
        data = streamed(whole) if stream else json.dumps(whole).encode()
        choice = fold(decode([data], chat(functions=[{"name": "f"}], stream=stream))).choices[0]
        (call,) = choice.calls.values()
        assert (call.name, json.loads(call.arguments), call.kind) == ("f", {"n": 1}, chat_pb2.TOOL_KIND_LEGACY_FUNCTION)
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_FUNCTION_CALL
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 1, **two}], "there is room for one"


class TestCustomTools:
    def test_take_one_text(self) -> None:
        (tool,) = sent(tools=[custom(description="Runs it.", format={"type": "text"})])["tools"]
        assert (tool["name"], tool["description"]) == ("run", "Runs it.")
        assert tool["input_schema"]["required"] == ["input"]

    def test_with_a_grammar_are_named(self) -> None:
        grammar = {"type": "grammar", "grammar": {"definition": "a", "syntax": "regex"}}
        with pytest.raises(CallError) as caught:
            encoded(chat(tools=[custom(format=grammar)]))
        assert caught.value.param == "tools[0].custom.format"

    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize(
        ("given", "text"),
        [({"input": 'ls "a"\n'}, 'ls "a"\n'), ({"other": 1}, {"other": 1}), ({}, {})],
    )
    def test_calls_come_back_as_text(self, stream: bool, given: Object, text: Any) -> None:
        whole = message({"type": "tool_use", "id": "toolu_1", "name": "run", "input": given}, stop="tool_use")
        data = streamed(whole) if stream else json.dumps(whole).encode()
        (call,) = fold(decode([data], chat(tools=[custom()], stream=stream))).choices[0].calls.values()
        assert (call.id, call.name, call.kind) == ("toolu_1", "run", chat_pb2.TOOL_KIND_CUSTOM)
        assert (call.arguments if isinstance(text, str) else json.loads(call.arguments)) == text

"""A `ChatRequest` as OpenAI-like upstreams take it: what direct callers may send, and what cannot be written."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.openai.encode import Names, encode_chat

JSON = dict[str, Any]
USER = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="a")


def written(max_tokens_field: str = "", stream_usage: bool = True, **fields: Any) -> JSON:
    request = chat_pb2.ChatRequest(model="m", **{"messages": [USER], **fields})
    body: JSON = json.loads(encode_chat(request, Names(max_tokens_field), stream_usage))
    return body


def message(**fields: Any) -> JSON:
    (told,) = written(messages=[chat_pb2.Message(**{"role": chat_pb2.ROLE_ASSISTANT, **fields})])["messages"]
    assert isinstance(told, dict)
    return told


def refused(**fields: Any) -> tuple[Reason, str | None]:
    with pytest.raises(CallError) as raised:
        written(**fields)
    return raised.value.reason, raised.value.param


def test_the_smallest_one() -> None:
    assert written() == {"model": "m", "messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("role", "word"),
    [
        (chat_pb2.ROLE_SYSTEM, "system"),
        (chat_pb2.ROLE_DEVELOPER, "developer"),
        (chat_pb2.ROLE_USER, "user"),
        (chat_pb2.ROLE_ASSISTANT, "assistant"),
        (chat_pb2.ROLE_TOOL, "tool"),
        (chat_pb2.ROLE_FUNCTION, "function"),
    ],
)
def test_roles(role: Any, word: str) -> None:
    assert message(role=role, text="") == {"role": word, "content": ""}


def test_what_holds_nothing_is_named() -> None:
    empty = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text="a"), chat_pb2.ContentPart()])
    assert refused(messages=[USER, chat_pb2.Message(text="a")]) == (Reason.INVALID_REQUEST, "messages[1].role")
    assert refused(messages=[empty]) == (Reason.INVALID_REQUEST, "messages[0].content[1]")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"extra_json": b"[1]"}, "extra_json"),
        ({"stream": True, "stream_options_json": b"1"}, "stream_options"),
        ({"messages": [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="a", extra_json=b"{")]}, "messages[0]"),
        (
            {"tools": [chat_pb2.Tool(function=chat_pb2.FunctionTool(name="f", extra_json=b'"x"'))]},
            "tools[0].function",
        ),
        ({"response_format": chat_pb2.ResponseFormat(extra_json=b"null")}, "response_format"),
    ],
)
def test_extras_that_are_no_object_are_named(fields: JSON, param: str) -> None:
    assert refused(**fields) == (Reason.INVALID_REQUEST, param)


def test_a_typed_member_beats_its_namesake() -> None:
    told = written(extra_json=b'{"model":"forged","user":"forged","x":1.0}', user="u")
    assert (told["model"], told["user"], told["x"]) == ("m", "u", 1.0)


@pytest.mark.parametrize(
    ("field", "set_", "expected"),
    [
        ("", {"max_tokens": 1, "max_completion_tokens": 2}, {"max_tokens": 1, "max_completion_tokens": 2}),
        ("max_tokens", {"max_tokens": 1, "max_completion_tokens": 2}, {"max_tokens": 2}),
        ("max_tokens", {"max_completion_tokens": 0}, {"max_tokens": 0}),
        ("max_completion_tokens", {"max_tokens": 1}, {"max_completion_tokens": 1}),
        ("max_completion_tokens", {}, {}),
    ],
)
def test_the_one_name_that_an_upstream_knows_for_the_limit(field: str, set_: JSON, expected: JSON) -> None:
    told = written(field, sampling=chat_pb2.Sampling(**set_))
    assert {name: told[name] for name in told if "max" in name} == expected


def test_sampling_that_is_set_to_zero_is_said() -> None:
    sampling = chat_pb2.Sampling(temperature=0, top_p=0, seed=0, n=0, logprobs=False, frequency_penalty=0)
    told = written(sampling=sampling)
    assert {name: told[name] for name in ("temperature", "top_p", "seed", "n", "logprobs", "frequency_penalty")} == {
        "temperature": 0.0,
        "top_p": 0.0,
        "seed": 0,
        "n": 0,
        "logprobs": False,
        "frequency_penalty": 0.0,
    }
    assert "presence_penalty" not in told


@pytest.mark.parametrize(
    ("sampling", "stop"),
    [({"stop": ["a"], "stop_is_string": True}, "a"), ({"stop": ["a"]}, ["a"]), ({"stop": ["a", "b"]}, ["a", "b"])],
)
def test_stop_keeps_its_form(sampling: JSON, stop: Any) -> None:
    assert written(sampling=chat_pb2.Sampling(**sampling))["stop"] == stop


@pytest.mark.parametrize(
    ("options", "ask", "expected"),
    [
        (b"", True, {"include_usage": True}),
        (b'{"include_usage":false,"x":1}', True, {"include_usage": True, "x": 1}),
        (b'{"x":1}', False, {"x": 1}),
        (b"", False, None),
    ],
)
def test_usage_is_asked_for_where_it_may_be(options: bytes, ask: bool, expected: JSON | None) -> None:
    told = written(stream=True, stream_options_json=options, stream_usage=ask)
    assert (told["stream"], told.get("stream_options")) == (True, expected)
    assert "stream_options" not in written(stream_options_json=options, stream_usage=ask)


@pytest.mark.parametrize(
    ("mode", "word"),
    [
        (chat_pb2.TOOL_MODE_AUTO, "auto"),
        (chat_pb2.TOOL_MODE_NONE, "none"),
        (chat_pb2.TOOL_MODE_REQUIRED, "required"),
        (chat_pb2.TOOL_MODE_UNSPECIFIED, "auto"),
    ],
)
def test_choices_of_a_tool(mode: Any, word: str) -> None:
    choice = chat_pb2.ToolChoice(mode=mode)
    assert written(tool_choice=choice)["tool_choice"] == word
    assert written(function_call=choice)["function_call"] == word


def test_a_named_choice() -> None:
    choice = chat_pb2.ToolChoice(function="f", function_extra_json=b'{"x":1}', extra_json=b'{"y":2}')
    assert written(tool_choice=choice)["tool_choice"] == {"type": "function", "function": {"name": "f", "x": 1}, "y": 2}
    assert written(function_call=choice)["function_call"] == {"name": "f", "y": 2}
    other = chat_pb2.ToolChoice(other_json=b'{"type":"allowed_tools"}')
    assert written(tool_choice=other)["tool_choice"] == {"type": "allowed_tools"}


def test_earlier_calls() -> None:
    calls = [
        chat_pb2.ToolCall(id="a", name="f", arguments="{}", kind=chat_pb2.TOOL_KIND_FUNCTION, extra_json=b'{"x":1}'),
        chat_pb2.ToolCall(id="b", name="g", arguments="t", kind=chat_pb2.TOOL_KIND_CUSTOM),
        chat_pb2.ToolCall(id="c", name="h", arguments="{}", function_extra_json=b'{"y":2}'),
        chat_pb2.ToolCall(other_json=b'{"type":"computer"}'),
    ]
    told = message(tool_calls=calls)
    assert told["content"] is None
    assert told["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}, "x": 1},
        {"id": "b", "type": "custom", "custom": {"name": "g", "input": "t"}},
        {"id": "c", "type": "function", "function": {"name": "h", "arguments": "{}", "y": 2}},
        {"type": "computer"},
    ]


def test_a_call_without_an_id_gets_none() -> None:
    told = message(tool_calls=[chat_pb2.ToolCall(name="f", arguments="{}")])
    assert told["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_the_earlier_legacy_call() -> None:
    told = message(tool_calls=[chat_pb2.ToolCall(name="f", arguments="{}", kind=chat_pb2.TOOL_KIND_LEGACY_FUNCTION)])
    assert told["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in told


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, {"type": "text"}),
        ({"text": True}, {"type": "text"}),
        ({"json_object": True}, {"type": "json_object"}),
        ({"other_json": b'{"type":"grammar"}'}, {"type": "grammar"}),
        (
            {"json_schema": chat_pb2.JsonSchema(name="s")},
            {"type": "json_schema", "json_schema": {"name": "s"}},
        ),
        (
            {"json_schema": chat_pb2.JsonSchema(name="s", description="", schema_json=b"{}", strict=False)},
            {"type": "json_schema", "json_schema": {"name": "s", "description": "", "schema": {}, "strict": False}},
        ),
    ],
)
def test_the_form_of_the_answer(wanted: JSON, expected: JSON) -> None:
    assert written(response_format=chat_pb2.ResponseFormat(**wanted))["response_format"] == expected

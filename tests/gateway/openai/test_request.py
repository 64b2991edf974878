"""A request's JSON to the contract: what is typed, what travels on as it is, and what concerns the edge alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.client import MESSAGES

from gateway.openai.request import decode_chat
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2


def decode(**members: Any) -> chat_pb2.ChatRequest:
    return decode_chat(json.dumps({"model": "m", "messages": MESSAGES, **members}).encode()).request


def decode_message(**members: Any) -> chat_pb2.Message:
    return decode(messages=[{"role": "user", "content": "a", **members}]).messages[0]


def test_the_smallest_one() -> None:
    asked = decode_chat(b'{"model":"m","messages":[{"role":"user","content":"a"}]}')
    assert (asked.model, asked.stream, asked.include_usage) == ("m", False, False)
    message = chat_pb2.Message(role=chat_pb2.ROLE_USER, text="a")
    expected = chat_pb2.ChatRequest(messages=[message], sampling=chat_pb2.Sampling())
    assert asked.request == expected, "the target's name of the model is the router's to fill in"


@pytest.mark.parametrize(
    ("members", "stream", "include_usage"),
    [
        ({"stream": True}, True, False),
        ({"stream": True, "stream_options": {}}, True, False),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True),
        ({"stream": True, "stream_options": {"include_usage": None}}, True, False),
        ({"stream": False, "stream_options": {"include_usage": True}}, False, False),
        ({"stream": None}, False, False),
    ],
)
def test_streaming(members: dict[str, Any], stream: bool, include_usage: bool) -> None:
    asked = decode_chat(json.dumps({"model": "m", "messages": MESSAGES, **members}).encode())
    assert (asked.stream, asked.request.stream, asked.include_usage) == (stream, stream, include_usage)
    assert asked.request.stream_options_json == b""


def test_options_of_a_stream_that_are_not_ours_go_on() -> None:
    asked = decode(stream=True, stream_options={"include_usage": True, "include_obfuscation": False})
    assert asked.stream_options_json == b'{"include_obfuscation":false}'


def test_sampling_is_exact_and_absent_is_absent() -> None:
    sampling = decode(temperature=0.7, top_p=1, n=2, seed=-(2**63), max_tokens=0, stop="a", logprobs=False).sampling
    assert sampling == chat_pb2.Sampling(
        temperature=0.7,
        top_p=1.0,
        n=2,
        seed=-(2**63),
        max_tokens=0,
        stop=["a"],
        stop_is_string=True,
        logprobs=False,
    )
    for name in ("frequency_penalty", "presence_penalty", "max_completion_tokens", "top_logprobs"):
        assert not sampling.HasField(name)


def test_null_is_absent_at_every_level() -> None:
    calls = [
        {"type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"type": "custom", "custom": {"name": "c", "input": ""}},
    ]
    blocks = [{"signature": "s"}]
    absent = decode_message(tool_calls=calls, reasoning_blocks=blocks)
    nulls = {"text": None, "redacted": None, "position": None, "by": None, "index": None}
    assert absent == decode_message(
        name=None,
        refusal=None,
        tool_call_id=None,
        function_call=None,
        audio=None,
        reasoning_content=None,
        tool_calls=[{**call, "id": None, "seal": None} for call in calls],
        reasoning_blocks=[{**block, **nulls} for block in blocks],
    )


def test_content_keeps_its_form() -> None:
    assert decode_message(content="").HasField("text")
    parts = decode_message(
        content=[
            {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            {"type": "file", "file": {"file_id": "f"}},
            {"type": "video_url", "video_url": {"url": "u"}},
        ]
    ).parts
    assert [part.WhichOneof("part") for part in parts] == ["text", "image", "audio", "file", "other_json"]
    assert parts[0].extra_json == b'{"cache_control":{"type": "ephemeral"}}'
    assert (parts[1].image.url, parts[1].image.detail) == ("data:x", "low")
    assert json.loads(parts[4].other_json) == {"type": "video_url", "video_url": {"url": "u"}}
    nothing = decode_message(role="assistant", content=None)
    assert not nothing.HasField("text")
    assert not nothing.parts


def test_earlier_calls() -> None:
    message = decode_message(
        role="assistant",
        content=None,
        tool_calls=[
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}},
            {"id": "c", "type": "computer", "computer": {}},
        ],
        function_call={"name": "h", "arguments": ""},
    )
    kinds = [(call.kind, call.id, call.name, call.arguments) for call in message.tool_calls]
    assert kinds == [
        (chat_pb2.TOOL_KIND_FUNCTION, "a", "f", "{}"),
        (chat_pb2.TOOL_KIND_CUSTOM, "b", "g", "x"),
        (chat_pb2.TOOL_KIND_UNSPECIFIED, "", "", ""),
        (chat_pb2.TOOL_KIND_LEGACY_FUNCTION, "", "h", ""),
    ]
    assert json.loads(message.tool_calls[2].other_json)["id"] == "c"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", chat_pb2.ToolChoice(mode=chat_pb2.TOOL_MODE_NONE)),
        ("auto", chat_pb2.ToolChoice(mode=chat_pb2.TOOL_MODE_AUTO)),
        ("required", chat_pb2.ToolChoice(mode=chat_pb2.TOOL_MODE_REQUIRED)),
        ({"type": "function", "function": {"name": "f"}}, chat_pb2.ToolChoice(function="f")),
    ],
)
def test_the_choice_of_a_tool(choice: Any, expected: chat_pb2.ToolChoice) -> None:
    assert decode(tool_choice=choice).tool_choice == expected


def test_a_schema_is_not_touched() -> None:
    """Its members keep their order, its numbers their form, its text its escapes."""
    schema = rb'{"type":"object", "properties":{"b":{"maximum":1.0},"a":{"pattern":"\u00e9"}},"x":1E5}'
    tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % schema
    shape = b'{"type":"json_schema","json_schema":{"name":"s","schema":%b,"strict":true}}' % schema
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[%b],"response_format":%b}' % (tool, shape)
    request = decode_chat(body).request
    assert request.tools[0].function.parameters_json == schema
    assert request.response_format.json_schema.schema_json == schema
    assert request.response_format.json_schema.strict is True


def test_what_no_family_interprets_goes_on_in_its_order() -> None:
    body = b'{"z":1.0,"model":"m","store":true,"messages":[{"role":"user","content":"a"}],"a":[1E2],"metadata":{}}'
    extra = decode_chat(body).request.extra_json
    assert json.loads(extra) == {"store": True, "metadata": {}, "z": 1.0, "a": [100.0]}
    assert extra.endswith(b'"z":1.0,"a":[1E2]}')


def test_the_last_of_two_members_of_one_name_counts() -> None:
    body = b'{"model":"m","model":"n","messages":[{"role":"user","content":"a","content":"b"}],"x":1,"x":2}'
    asked = decode_chat(body)
    assert (asked.model, asked.request.messages[0].text, asked.request.extra_json) == ("n", "b", b'{"x":2}')


@pytest.mark.parametrize(
    ("message", "param", "code"),
    [
        ({"role": "user", "content": []}, "messages[0].content", "invalid_value"),
        ({"role": "assistant", "content": []}, "messages[0].content", "invalid_value"),
        ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
        ({"role": "system", "content": None}, "messages[0].content", "missing_required_parameter"),
        ({"role": "developer"}, "messages[0].content", "missing_required_parameter"),
    ],
)
def test_content_that_must_be_there(message: dict[str, Any], param: str, code: str) -> None:
    with pytest.raises(CallError) as raised:
        decode(messages=[message])
    assert (raised.value.reason, raised.value.param, raised.value.code) == (Reason.INVALID_REQUEST, param, code)


@pytest.mark.parametrize("role", ["assistant", "tool", "function"])
def test_content_that_may_be_missing(role: str) -> None:
    assert not decode(messages=[{"role": role, "tool_call_id": "a", "name": "f"}]).messages[0].HasField("text")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model":"m",}',
        b'{"a":1}\x00',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        pytest.param(b'{"model":"m","x":' + b"[" * 100_000, id="nested too deeply"),
    ],
)
def test_what_is_no_json_at_all(body: bytes) -> None:
    with pytest.raises(CallError) as raised:
        decode_chat(body)
    error = raised.value
    assert (error.reason, error.param, error.code) == (Reason.INVALID_REQUEST, None, "invalid_json")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        (b"[]", None, "invalid_type"),
        (b'"a"', None, "invalid_type"),
        (b"{}", "model", "missing_required_parameter"),
        (b'{"model":"m"}', "messages", "missing_required_parameter"),
        (b'{"messages":[{"role":"user","content":"a"}]}', "model", "missing_required_parameter"),
        (b'{"model":"","messages":[{"role":"user","content":"a"}]}', "model", "invalid_value"),
        (b'{"model":"m","messages":[{"content":"a"}]}', "messages[0].role", "missing_required_parameter"),
        (b'{"model":1,"messages":[]}', "model", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"a"}],"temperature":3}', "temperature", "invalid_value"),
        (b'{"model":"m","messages":[{"role":"user","content":"a"}],"n":"2"}', "n", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"a"}],"store":1}', "store", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"a"}],"metadata":"x"}', "metadata", "invalid_type"),
        (b'{"model":"m","messages":[{"role":"user","content":"a"}],"audio":[]}', "audio", "invalid_type"),
    ],
)
def test_the_field_at_fault_is_named(body: bytes, param: str | None, code: str) -> None:
    with pytest.raises(CallError) as raised:
        decode_chat(body)
    assert (raised.value.reason, raised.value.param, raised.value.code) == (Reason.INVALID_REQUEST, param, code)

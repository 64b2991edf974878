"""`param` is the exact path of the field at fault, however deep it stands, for every endpoint with a body."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.openai.embeddings import decode_embed
from gateway.openai.moderations import decode_moderation
from gateway.openai.request import decode_chat
from gateway.openai.text import decode_text
from trestle.errors import CallError, Reason

FINE = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
MISSING, TYPE, VALUE = "missing_required_parameter", "invalid_type", "invalid_value"
JSON = dict[str, Any]


def parts(*found: Any) -> JSON:
    """A third message of these parts."""
    return {"messages": [*FINE, {"role": "user", "content": list(found)}]}


def said(**members: Any) -> JSON:
    """A third message, the assistant's."""
    return {"messages": [*FINE, {"role": "assistant", **members}]}


def function(**members: Any) -> JSON:
    """A second tool."""
    tools = [{"type": "web_search"}, {"type": "function", "function": members}]
    return {"tools": tools}


def shape(**members: Any) -> JSON:
    return {"response_format": {"type": "json_schema", "json_schema": members}}


IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

# param -> what a request has beside model and messages, or instead of them; the code
CHAT: list[tuple[str, JSON, str]] = [
    ("messages[2].content[0].image_url.url", parts({"type": "image_url", "image_url": {}}), MISSING),
    ("messages[2].content[1].image_url.url", parts(IMAGE, {**IMAGE, "image_url": {"url": 7}}), TYPE),
    ("messages[2].content[1].image_url.url", parts(IMAGE, {**IMAGE, "image_url": {"x": 1, "url": None}}), TYPE),
    ("messages[2].content[0].image_url.detail", parts({**IMAGE, "image_url": {"url": "u", "detail": {}}}), TYPE),
    ("messages[2].content[0].image_url", parts({**IMAGE, "image_url": "data:x"}), TYPE),
    ("messages[2].content[0].image_url", parts({"type": "image_url"}), MISSING),
    ("messages[2].content[0].input_audio.data", parts({"type": "input_audio", "input_audio": {}}), MISSING),
    (
        "messages[2].content[0].input_audio.format",
        parts({"type": "input_audio", "input_audio": {"data": "", "format": 1}}),
        TYPE,
    ),
    ("messages[2].content[0].file.file_id", parts({"type": "file", "file": {"file_id": 1}}), TYPE),
    ("messages[2].content[0].text", parts({"type": "text", "text": ["a"]}), TYPE),
    ("messages[2].content[0].refusal", parts({"type": "refusal"}), MISSING),
    ("messages[2].content[1].type", parts(IMAGE, {"type": 7}), VALUE),
    ("messages[2].content[1]", parts(IMAGE, "text"), TYPE),
    ("messages[2].name", said(content="a", name=[]), TYPE),
    ("messages[2].refusal", said(refusal=1), TYPE),
    ("messages[2].reasoning_content", said(content="a", reasoning_content=["a"]), TYPE),
    ("messages[2].reasoning_blocks[0].text", said(reasoning_blocks=[{"text": 1}]), TYPE),
    ("messages[2].reasoning_blocks[1].redacted", said(reasoning_blocks=[{}, {"redacted": "?"}]), TYPE),
    ("messages[2].reasoning_blocks[1].redacted", said(reasoning_blocks=[{}, {"redacted": "ä"}]), TYPE),
    ("messages[2].reasoning_blocks[0].position", said(reasoning_blocks=[{"position": -1}]), VALUE),
    ("messages[2].audio", said(audio="a"), TYPE),
    ("messages[2].tool_calls[1]", said(tool_calls=[CALL, None]), TYPE),
    ("messages[2].tool_calls[1].type", said(tool_calls=[CALL, {"function": CALL["function"]}]), MISSING),
    ("messages[2].tool_calls[0].id", said(tool_calls=[{**CALL, "id": 7}]), TYPE),
    ("messages[2].tool_calls[0].function", said(tool_calls=[{"type": "function"}]), MISSING),
    (
        "messages[2].tool_calls[0].function.arguments",
        said(tool_calls=[{"type": "function", "function": {"name": "f", "arguments": {}}}]),
        TYPE,
    ),
    ("messages[2].tool_calls[0].custom.input", said(tool_calls=[{"type": "custom", "custom": {"name": "f"}}]), MISSING),
    ("messages[2].tool_calls[0].seal.signature", said(tool_calls=[{**CALL, "seal": {"by": "x"}}]), MISSING),
    ("messages[2].function_call.arguments", said(function_call={"name": "f"}), MISSING),
    ("tools[1].function.name", function(), MISSING),
    ("tools[1].function.name", function(x=1.0, name=7), TYPE),
    ("tools[1].function.description", function(name="f", description={}), TYPE),
    ("tools[1].function.parameters", function(name="f", parameters="{}"), TYPE),
    ("tools[1].function.strict", function(name="f", strict="yes"), TYPE),
    ("tools[0].function", {"tools": [{"type": "function"}]}, MISSING),
    ("tools[0]", {"tools": ["f"]}, TYPE),
    ("tools", {"tools": {}}, TYPE),
    ("tool_choice", {"tool_choice": 1}, TYPE),
    ("tool_choice.type", {"tool_choice": {"function": {"name": "f"}}}, MISSING),
    ("tool_choice.function.name", {"tool_choice": {"type": "function", "function": {}}}, MISSING),
    ("tool_choice.function.name", {"tool_choice": {"type": "function", "function": {"name": 1}}}, TYPE),
    ("functions[1].name", {"functions": [{"name": "f"}, {}]}, MISSING),
    ("functions[0].parameters", {"functions": [{"name": "f", "parameters": []}]}, TYPE),
    ("function_call", {"function_call": "maybe"}, VALUE),
    ("function_call.name", {"function_call": {"x": 1}}, MISSING),
    ("response_format", {"response_format": "json"}, TYPE),
    ("response_format.type", {"response_format": {"json_schema": {}}}, MISSING),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}, MISSING),
    ("response_format.json_schema.name", shape(schema={}), MISSING),
    ("response_format.json_schema.name", shape(name=[]), TYPE),
    ("response_format.json_schema.schema", shape(name="s", schema=[]), TYPE),
    ("response_format.json_schema.strict", shape(name="s", strict=1), TYPE),
    ("stop[3]", {"stop": ["a", "b", "c", None]}, TYPE),
    ("modalities[1]", {"modalities": ["text", 1]}, TYPE),
    ("logit_bias", {"logit_bias": [1]}, TYPE),
    ("audio", {"audio": True}, TYPE),
    ("web_search_options", {"web_search_options": 1}, TYPE),
    ("prediction", {"prediction": "a"}, TYPE),
    ("prompt_cache_key", {"prompt_cache_key": 1}, TYPE),
    ("store", {"store": "yes"}, TYPE),
]
TEXT: list[tuple[str, JSON, str]] = [
    ("prompt", {"prompt": {}}, TYPE),
    ("prompt", {"prompt": []}, VALUE),
    ("prompt", {"prompt": ["a", 1]}, TYPE),
    ("prompt[1]", {"prompt": ["a", {}]}, TYPE),
    ("prompt[1]", {"prompt": [[1], []]}, VALUE),
    ("prompt[1][2]", {"prompt": [[1], [1, 2, "a"]]}, TYPE),
    ("prompt[0]", {"prompt": [-1]}, VALUE),
    ("prompt[1][0]", {"prompt": [[1], [2**32]]}, VALUE),
    ("best_of", {"best_of": -1}, VALUE),
    ("echo", {"echo": "yes"}, TYPE),
    ("logprobs", {"logprobs": True}, TYPE),
    ("suffix", {"suffix": []}, TYPE),
    ("stop[0]", {"stop": [1]}, TYPE),
    ("stream_options.include_usage", {"stream": True, "stream_options": {"include_usage": 1}}, TYPE),
    ("temperature", {"temperature": -0.1}, VALUE),
    ("model", {"model": None}, TYPE),
]
EMBEDDING: list[tuple[str, JSON, str]] = [
    ("input", {"input": None}, TYPE),
    ("input", {"input": []}, VALUE),
    ("input", {"input": [1, "a"]}, TYPE),
    ("input[0]", {"input": [[]]}, VALUE),
    ("input[1]", {"input": ["a", True]}, TYPE),
    ("input[1][1]", {"input": [[1], [1, "a"]]}, TYPE),
    ("input[0]", {"input": [2**32]}, VALUE),
    ("encoding_format", {"encoding_format": ""}, VALUE),
    ("encoding_format", {"encoding_format": 8}, TYPE),
    ("dimensions", {"dimensions": 0}, VALUE),
    ("user", {"user": 1}, TYPE),
    ("model", {"model": ""}, VALUE),
]
MODERATION: list[tuple[str, JSON, str]] = [
    ("input", {"input": None}, MISSING),
    ("input", {"input": {"type": "text"}}, TYPE),
    ("input", {"input": 7}, TYPE),
    ("model", {"model": 7}, TYPE),
    ("model", {"model": ""}, VALUE),
]
ENDPOINTS: list[tuple[Callable[[bytes], Any], JSON, list[tuple[str, JSON, str]]]] = [
    (decode_chat, {"model": "m", "messages": FINE}, CHAT),
    (decode_text, {"model": "m", "prompt": "a"}, TEXT),
    (decode_embed, {"model": "m", "input": "a"}, EMBEDDING),
    (decode_moderation, {"input": "a"}, MODERATION),
]
ROWS = [
    pytest.param(decode, {**base, **members}, param, code, id=f"{decode.__name__[7:]}-{param}-{code}")
    for decode, base, rows in ENDPOINTS
    for param, members, code in rows
]


@pytest.mark.parametrize("unknown", [{}, {"a_member_that_nobody_knows": {"url": 1.0}}], ids=["known", "unknown"])
@pytest.mark.parametrize(("decode", "body", "param", "code"), ROWS)
def test_the_path_of_the_fault(
    decode: Callable[[bytes], Any], body: JSON, param: str, code: str, unknown: JSON
) -> None:
    """Unknown members mean a second pass, which must not change what is said."""
    with pytest.raises(CallError) as caught:
        decode(json.dumps({**unknown, **body}).encode())
    error = caught.value
    assert (error.reason, error.param, error.code) == (Reason.INVALID_REQUEST, param, code)
    assert f"'{param}'" in error.message

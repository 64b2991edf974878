"""Requests without ceremony."""

from __future__ import annotations

import json

from trestle.client import (
    ChatRequest,
    CompleteRequest,
    EmbedRequest,
    Message,
    ModerateRequest,
    Sampling,
    assistant,
    chat_request,
    embed_request,
    function,
    moderate_request,
    system,
    text_request,
    tool_result,
    user,
)
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2


def test_a_conversation() -> None:
    request = chat_request(
        "m", system("Be brief."), "Hello", assistant("Hi."), tool_result("call_1", "rain"),
        sampling=Sampling(temperature=0.7), tools=[function("weather")], upstream="second",
    )  # fmt: skip
    assert request == ChatRequest(
        model="m",
        messages=[
            Message(role=chat_pb2.ROLE_SYSTEM, text="Be brief."),
            Message(role=chat_pb2.ROLE_USER, text="Hello"),
            Message(role=chat_pb2.ROLE_ASSISTANT, text="Hi."),
            Message(role=chat_pb2.ROLE_TOOL, text="rain", tool_call_id="call_1"),
        ],
        sampling=Sampling(temperature=0.7),
        tools=[chat_pb2.Tool(function=chat_pb2.FunctionTool(name="weather"))],
        upstream="second",
    )
    assert not chat_request("m", "Hello").HasField("sampling")


def test_pictures_stand_after_the_text() -> None:
    text, picture = user("What is this?", images=["https://example.com/a.png"]).parts
    assert (text.text, picture.image.url) == ("What is this?", "https://example.com/a.png")


def test_a_tool() -> None:
    schema = {"type": "object", "properties": {"place": {"type": "string"}}}
    tool = function("weather", "Tells it.", schema, strict=True).function
    assert (tool.name, tool.description, tool.strict) == ("weather", "Tells it.", True)
    assert json.loads(tool.parameters_json) == schema
    bare = function("weather").function
    assert not bare.HasField("description")
    assert not bare.HasField("strict")


def test_prompts_and_inputs_are_texts_or_tokens() -> None:
    tokens = embedding_pb2.TokenIds(ids=[1, 2])
    assert text_request("m", "Once", [1, 2]) == CompleteRequest(
        model="m", prompts=[completion_pb2.Prompt(text="Once"), completion_pb2.Prompt(tokens=tokens)]
    )
    assert text_request("m", "Once").single
    assert embed_request("m", "a", [1, 2], dimensions=3) == EmbedRequest(
        model="m", dimensions=3, inputs=[embedding_pb2.EmbedInput(text="a"), embedding_pb2.EmbedInput(tokens=tokens)]
    )
    assert embed_request("m", "a").single


def test_what_is_to_be_judged() -> None:
    assert moderate_request("a", "b", model="m") == ModerateRequest(model="m", input_json=b'["a", "b"]')

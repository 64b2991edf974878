"""Requests without ceremony. What is not said here is a field of the message that comes back: set it there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, moderation_pb2


def chat_request(
    model: str,
    *messages: str | chat_pb2.Message,
    sampling: chat_pb2.Sampling | None = None,
    tools: Iterable[chat_pb2.Tool] = (),
    upstream: str = "",
) -> chat_pb2.ChatRequest:
    """A chat completion. messages: oldest first, a text is the user's. upstream: empty means the worker's first."""
    turns = (user(each) if isinstance(each, str) else each for each in messages)
    return chat_pb2.ChatRequest(model=model, messages=turns, sampling=sampling, tools=tools, upstream=upstream)


def system(text: str) -> chat_pb2.Message:
    """What stands above the conversation."""
    return chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, text=text)


def user(text: str, *, images: Iterable[str] = ()) -> chat_pb2.Message:
    """A turn of the user's. images: https: or data: URLs, shown after the text."""
    parts = [chat_pb2.ContentPart(image=chat_pb2.Image(url=url)) for url in images]
    if not parts:
        return chat_pb2.Message(role=chat_pb2.ROLE_USER, text=text)
    return chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.ContentPart(text=text), *parts])


def assistant(text: str) -> chat_pb2.Message:
    """An earlier turn of the model's, when it was only text; `ChatAnswer.message` keeps all of an answer."""
    return chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, text=text)


def tool_result(call_id: str, text: str) -> chat_pb2.Message:
    """What a tool returned for the call with this id."""
    return chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id=call_id, text=text)


def function(
    name: str,
    description: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    strict: bool | None = None,
) -> chat_pb2.Tool:
    """A tool. parameters: the JSON Schema of its arguments. strict: whether they must follow it exactly."""
    schema = b"" if parameters is None else json.dumps(parameters).encode()
    tool = chat_pb2.FunctionTool(name=name, description=description, parameters_json=schema, strict=strict)
    return chat_pb2.Tool(function=tool)


def text_request(
    model: str, *prompts: str | Sequence[int], sampling: chat_pb2.Sampling | None = None, upstream: str = ""
) -> completion_pb2.CompleteRequest:
    """A legacy text completion. prompts: each a text or the ids of its tokens."""
    asked = (
        completion_pb2.Prompt(text=each)
        if isinstance(each, str)
        else completion_pb2.Prompt(tokens=embedding_pb2.TokenIds(ids=each))
        for each in prompts
    )
    return completion_pb2.CompleteRequest(
        model=model, prompts=asked, single=len(prompts) == 1, sampling=sampling, upstream=upstream
    )


def embed_request(
    model: str, *inputs: str | Sequence[int], dimensions: int | None = None, upstream: str = ""
) -> embedding_pb2.EmbedRequest:
    """Texts, or the ids of their tokens, to turn into vectors. dimensions: absent, the model's own."""
    asked = (
        embedding_pb2.EmbedInput(text=each)
        if isinstance(each, str)
        else embedding_pb2.EmbedInput(tokens=embedding_pb2.TokenIds(ids=each))
        for each in inputs
    )
    return embedding_pb2.EmbedRequest(
        model=model, inputs=asked, single=len(inputs) == 1, dimensions=dimensions, upstream=upstream
    )


def moderate_request(*inputs: str, model: str = "", upstream: str = "") -> moderation_pb2.ModerateRequest:
    """Texts to be judged. model: empty means the upstream's default."""
    return moderation_pb2.ModerateRequest(model=model, input_json=json.dumps(inputs).encode(), upstream=upstream)

"""An OpenAI-like vendor's side of a call, for the tests of its family: events and answers as it sends them, and what
becomes of them."""

from __future__ import annotations

import json
from typing import Any

from trestle.fold import AnswerFold, FoldedChoice
from trestle.v1 import chat_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.family import ChatDecoder, Upstream

JSON = dict[str, Any]
UPSTREAM = Upstream("vendor", OpenAIUpstream(base_url="http://127.0.0.1"))
MESSAGES = [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello there, how are you?")]


def decoder_for(n: int = 1) -> ChatDecoder:
    """The decoder of an answer of n choices."""
    request = chat_pb2.ChatRequest(model="asked", messages=MESSAGES, sampling=chat_pb2.Sampling(n=n))
    return FAMILY.chat_decoder(request, UPSTREAM)


def chunk(delta: JSON | None = None, finish: str | None = None, index: int = 0, **members: Any) -> JSON:
    """An event of one choice."""
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return {"id": "a", "created": 1, "model": "m", "choices": [choice], **members}


STOP = chunk(finish="stop")


def feed(decoder: ChatDecoder, *events: JSON | str) -> list[chat_pb2.ChatChunk]:
    """The chunks that these events make."""
    response = chat_pb2.ChatResponse()
    for event in events:
        decoder.feed(("", (event if isinstance(event, str) else json.dumps(event)).encode()), response.chunks)
    return list(response.chunks)


def stream(*events: JSON | str, n: int = 1) -> AnswerFold:
    """The answer of these events and a [DONE]."""
    answer = AnswerFold()
    answer.feed(feed(decoder_for(n), *events, "[DONE]"))
    answer.close()
    return answer


def whole(message: JSON, finish: str = "stop", /, n: int = 1, **members: Any) -> AnswerFold:
    """The answer in one piece with this message."""
    body = {"id": "a", "created": 1, "model": "m", **members}
    body.setdefault("choices", [{"index": 0, "message": message, "finish_reason": finish}])
    response = chat_pb2.ChatResponse()
    decoder_for(n).feed_whole(json.dumps(body).encode(), response.chunks)
    answer = AnswerFold()
    answer.feed(response.chunks)
    answer.close()
    return answer


def calls(choice: FoldedChoice) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    return [(call.id, call.name, call.arguments) for _, call in sorted(choice.calls.items())]


def call(index: int | None = None, id: str | None = None, name: str | None = None, arguments: Any = None) -> JSON:  # noqa: A002
    """A delta with a piece of a call."""
    function = {"name": name, "arguments": arguments}
    piece = {"index": index, "id": id, "function": {k: v for k, v in function.items() if v is not None}}
    return {"tool_calls": [{k: v for k, v in piece.items() if v is not None}]}

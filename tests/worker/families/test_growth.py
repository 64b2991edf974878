"""A request four times as long costs four times the work, and so does an answer: in each family, in the gateway and in
what folds an answer, whatever there is much of. Lines of Python are counted; one loop inside another shows at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pytest
from support import anthropic, gemini, openai
from support.steps import steps

from gateway.openai.completion import ChatFold
from gateway.openai.request import decode_chat
from gateway.openai.stream import ChatStreamEncoder
from trestle.v1 import chat_pb2
from worker.families.echo import FAMILY as ECHO
from worker.families.openai import FAMILY as OPENAI
from worker.relay import decode
from worker.sse import SseParser

JSON = dict[str, Any]
FEW: Final = 60
TIMES: Final = 4
MOST: Final = 1.25 * TIMES
USER: Final = {"role": "user", "content": "Hello."}


def assert_grows_with(work: Callable[[int], Callable[[], object]]) -> None:
    """work: makes what is to be measured, for so many."""
    work(1)()  # what is only done once: caches, imports
    few, many = steps(work(FEW)), steps(work(FEW * TIMES))
    assert many < MOST * few, f"{few} lines for {FEW}, {many} for {TIMES} times as many"


def tool(name: str) -> JSON:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"a": {}}}}}


def call(call_id: str, name: str = "f") -> JSON:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def result(call_id: str) -> JSON:
    return {"role": "tool", "tool_call_id": call_id, "content": "r"}


def called(ids: list[str]) -> JSON:
    return {"messages": [USER, {"role": "assistant", "tool_calls": list(map(call, ids))}, *map(result, ids)]}


def of_form(schema: JSON) -> JSON:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def asked_many(texts: Iterable[str], n: int) -> JSON:
    return {"messages": [{**USER, **dict.fromkeys(texts, 1)} for _ in range(n)]}


REQUESTS: Final[Mapping[str, Callable[[int], JSON]]] = {
    "messages": lambda n: {"messages": [USER, {"role": "assistant", "content": "a"}] * n + [USER]},
    "instructions between": lambda n: {"messages": [USER, {"role": "system", "content": "a"}] * n + [USER]},
    "parts": lambda n: {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * n}]},
    "calls of one id": lambda n: called(["a"] * n),
    "calls": lambda n: called([f"a{i}" for i in range(n)]),
    "turns of one id": lambda n: {"messages": [each for _ in range(n) for each in called(["a"])["messages"]]},
    "ids that no vendor takes": lambda n: called([f"a{'!?.'[i % 3]}" for i in range(n)]),
    "tools": lambda n: {"tools": [tool(f"f{i}") for i in range(n)]},
    "names that no vendor takes": lambda n: {"tools": [tool(f"0é{i}") for i in range(n)]},
    "allowed tools": lambda n: {
        "tools": [tool(f"f{i}") for i in range(n)],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {
                "mode": "auto",
                "tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(n)],
            },
        },
    },
    "unknown members": lambda n: {f"x{i}": 1 for i in range(n)},
    "unknown members of messages": lambda n: asked_many(["x", "y"], n),
    "unknown members of one": lambda n: asked_many([f"x{i}" for i in range(n)], 1),
    "bias": lambda n: {"logit_bias": {str(i): 1 for i in range(n)}},
    "properties": lambda n: of_form({"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(n)}}),
    "references": lambda n: of_form({
        "type": "object",
        "properties": {f"p{i}": {"$ref": "#/$defs/x"} for i in range(n)},
        "$defs": {"x": {"type": "object", "properties": {"a": {"type": "string"}}}},
    }),
    "sealed thinking": lambda n: {
        "messages": [
            USER,
            {"role": "assistant", "content": "a", "reasoning_blocks": [{"type": "thinking", "text": "h"}] * n},
            USER,
        ]
    },
}  # fmt: skip


def encoded(family: str, members: JSON) -> None:
    """All that a worker does of a request before the upstream has it."""
    if family == "openai":
        request = anthropic.chat("m", **members)
        OPENAI.ignored_params(request, openai.UPSTREAM)
        OPENAI.encode_chat(request, openai.UPSTREAM)
    elif family == "echo":
        request = anthropic.chat("echo", **members)
        ECHO.ignored_params(request)
        list(ECHO.answer(request))
    else:
        vendor = {"anthropic": anthropic, "gemini": gemini}[family]
        vendor.ignored(vendor.chat(**members))
        vendor.encoded(vendor.chat(**members))


@pytest.mark.parametrize("family", ["anthropic", "echo", "gemini", "openai"])
@pytest.mark.parametrize("members", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request(family: str, members: Callable[[int], JSON]) -> None:
    def work(n: int) -> Callable[[], object]:
        asked = members(n)
        return lambda: encoded(family, asked)

    assert_grows_with(work)


@pytest.mark.parametrize("members", REQUESTS.values(), ids=REQUESTS.keys())
def test_a_request_that_is_read(members: Callable[[int], JSON]) -> None:
    def work(n: int) -> Callable[[], object]:
        body = json.dumps({"model": "m", "messages": [USER], **members(n)}).encode()
        return lambda: decode_chat(body)

    assert_grows_with(work)


def chunks(*deltas: JSON, finish: str = "stop", **members: Any) -> bytes:
    events = [openai.chunk(each, **members) for each in deltas]
    return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in (*events, openai.chunk(finish=finish)))


def blocks(*found: JSON) -> bytes:
    return anthropic.streamed(anthropic.message(*found), size=1)


def parts(*found: JSON, **members: Any) -> bytes:
    events = [gemini.answer(each, finish=None, **members) for each in found]
    return gemini.events(*events, gemini.answer({"text": "."}))


ANSWERS: Final[Mapping[str, tuple[str, Callable[[int], bytes]]]] = {
    "texts": ("openai", lambda n: chunks(*[{"content": "a"}] * n)),
    "arguments": ("openai", lambda n: chunks(openai.call(0, "a", "f", ""), *[openai.call(0, arguments="1")] * n)),
    "calls": ("openai", lambda n: chunks(*(openai.call(i, f"a{i}", "f", "{}") for i in range(n)))),
    "calls without a number": ("openai", lambda n: chunks(*(openai.call(None, f"a{i}", "f", "{}") for i in range(n)))),
    "calls of one number": ("openai", lambda n: chunks(*(openai.call(0, f"a{i}", "f", "{}") for i in range(n)))),
    "annotations": ("openai", lambda n: chunks(*({"annotations": [{"url": f"u{i}"}]} for i in range(n)))),
    "details": ("openai", lambda n: chunks(*({"reasoning_details": [{"index": i, "text": "a"}]} for i in range(n)))),
    "details in pieces": ("openai", lambda n: chunks(*[{"reasoning_details": [{"index": 0, "text": "a"}]}] * n)),
    "unknown members": ("openai", lambda n: chunks(*({f"x{i}": 1} for i in range(n)))),
    "one event": ("openai", lambda n: chunks({"tool_calls": [{"index": i, **call(f"a{i}")} for i in range(n)]})),
    "blocks": ("anthropic", lambda n: blocks(*[{"type": "text", "text": "a"}] * n)),
    "one block": ("anthropic", lambda n: blocks({"type": "text", "text": "a" * n})),
    "thinking": ("anthropic", lambda n: blocks(*[{"type": "thinking", "thinking": "a", "signature": "AAAA"}] * n)),
    "tools": (
        "anthropic",
        lambda n: blocks(*({"type": "tool_use", "id": f"t{i}", "name": "f", "input": {"a": 1}} for i in range(n))),
    ),
    "a server's tools": (
        "anthropic",
        lambda n: blocks(*[{"type": "server_tool_use", "id": "t", "name": "web_search", "input": {"a": 1}}] * n),
    ),
    "a vendor's pieces": ("gemini", lambda n: parts(*[{"text": "a"}] * n)),
    "functions": ("gemini", lambda n: parts(*[{"functionCall": {"name": "f", "args": {"a": 1}}}] * n)),
    "pictures": ("gemini", lambda n: parts(*[{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}] * n)),
    "seals": ("gemini", lambda n: parts(*[{"text": "a", "thoughtSignature": "AAAA"}] * n)),
    "sources": (
        "gemini",
        lambda n: parts(*[{"text": "a"}] * n, groundingMetadata={"groundingChunks": [{"web": {"uri": "u"}}]}),
    ),
}  # fmt: skip


def decoded(family: str, data: bytes) -> chat_pb2.ChatResponse:
    """All that a worker does of an answer."""
    if family == "openai":
        decoder: Any = openai.decoder_for()
    else:
        vendor: Any = {"anthropic": anthropic, "gemini": gemini}[family]
        decoder = vendor.FAMILY.chat_decoder(vendor.chat(stream=True), vendor.UPSTREAM)
    response = chat_pb2.ChatResponse()
    decode(data, SseParser(1_000_000), decoder, response.chunks)
    decoder.close(True, response.chunks)
    return response


@pytest.mark.parametrize(("family", "answer"), ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer(family: str, answer: Callable[[int], bytes]) -> None:
    def work(n: int) -> Callable[[], object]:
        data = answer(n)
        return lambda: decoded(family, data)

    assert_grows_with(work)


@pytest.mark.parametrize(("family", "answer"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("form", ["stream", "whole"])
def test_an_answer_that_is_shown(form: str, family: str, answer: Callable[[int], bytes]) -> None:
    def work(n: int) -> Callable[[], object]:
        found = decoded(family, answer(n)).chunks
        return lambda: shown(form, found)

    assert_grows_with(work)


def shown(form: str, found: Any) -> None:
    if form == "stream":
        encoder = ChatStreamEncoder(include_usage=True)
        for chunk in found:
            encoder.feed([chunk])
        encoder.close()
    else:
        fold = ChatFold()
        fold.feed(found)
        fold.encode()

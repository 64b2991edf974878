"""Random conversations: whatever a client may say is encoded, keeps to Anthropic's schema, and arrives whole and in
order."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.anthropic import FOLDER, assert_valid, chat, decode, encoded, message, streamed
from support.conversations import as_input, conversations, expected, options, text_part, texts_in

from gateway.openai.completion import ChatFold
from worker.families.anthropic.turns import GO_ON, PLACEHOLDER

Object = dict[str, Any]
Kind = Callable[[int], Object]

MODELS = (
    "claude-3-5-haiku-20241022",
    "claude-sonnet-4-5",
    "claude-opus-4-5-20251101",
    "claude-sonnet-4-6",
    "claude-opus-5",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "kimi-k2",
)
NO_PREFILL = MODELS[3:-1]


def blocks(content: Any) -> list[Object]:
    return [text_part(content)] if isinstance(content, str) else list(content)


def arrived(turns: list[Object]) -> list[Any]:
    """The same, of what goes upstream."""
    found: list[Any] = []
    for block in (block for turn in turns for block in blocks(turn["content"])):
        if block["type"] == "text":
            found.append(block["text"])
        elif block["type"] == "tool_result":
            inner = blocks(block.get("content", []))
            found.append(("result", *(each["text"] for each in inner if each["type"] == "text")))
        elif block["type"] == "tool_use":
            found.append(("call", block["name"], block["input"]))
    return found


@given(st.sampled_from(MODELS), conversations, options)
@settings(max_examples=400)
def test_nothing_is_lost_or_moved(model: str, messages: list[Object], wishes: Object) -> None:
    body = encoded(chat(model, **{**wishes, "messages": messages}))
    if FOLDER.is_dir():
        assert_valid(body, "messages.request")

    turns = body["messages"]
    roles = [turn["role"] for turn in turns]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] * (len(roles) % 2)
    instructed = [text for m in messages if m["role"] in ("system", "developer") for text in texts_in(m["content"])]
    assert [block["text"] for block in blocks(body.get("system", []))] == instructed

    got, wanted = arrived(turns), expected(messages)
    if turns[0]["content"] == PLACEHOLDER and (not wanted or wanted[0] != PLACEHOLDER):
        got = got[1:]
    if turns[-1]["role"] == "assistant" and wanted and isinstance(wanted[-1], str):
        assert model not in NO_PREFILL
        wanted[-1] = wanted[-1].rstrip()  # where the answer goes on
    elif turns[-1]["content"] == GO_ON and (not wanted or wanted[-1] != GO_ON):
        assert model in NO_PREFILL
        got.pop()
    assert got == [(*each[:2], as_input(each[2])) if each[0] == "call" else each for each in wanted]


def thought(number: int) -> Object:
    return {"type": "thinking", "thinking": f"Hm {number}.", "signature": f"seal{number}"}


def said(number: int) -> Object:
    return {"type": "text", "text": f"Text {number}, ä. "}


def searched(number: int) -> Object:
    return {"type": "server_tool_use", "id": f"srvtoolu_{number}", "name": "web_search", "input": {"query": "q"}}


def called(number: int) -> Object:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "f", "input": {"a": number}}


@given(
    st.lists(st.sampled_from([thought, said, searched]), max_size=9).filter(
        lambda kinds: (said, said) not in itertools.pairwise(kinds)
    ),
    st.lists(st.just(called), max_size=2),
    st.booleans(),
)
@settings(max_examples=300)
def test_an_answer_goes_back_as_it_came(kinds: list[Kind], calls: list[Kind], stream: bool) -> None:
    """Each block in its place: models whose thinking is sealed together with what stands before it refuse another
    order, and every model refuses an end that is thinking."""
    blocks = [kind(number) for number, kind in enumerate(kinds + calls)]
    assume(blocks)
    whole = message(*blocks)
    asked = chat("claude-sonnet-4-6", stream=stream)
    fold = ChatFold()
    fold.feed(decode([streamed(whole) if stream else json.dumps(whole).encode()], asked))
    told = json.loads(fold.encode())["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": each["id"], "content": "x"} for each in told.get("tool_calls", ())]
    first = {"role": "user", "content": "Go"}
    goes_on = results or [{"role": "user", "content": "On"}]
    messages = [first, told, *goes_on]
    turns = encoded(chat("claude-sonnet-4-6", messages=messages, reasoning_effort="low"))["messages"]
    (turn,) = [turn for turn in turns if turn["role"] == "assistant"]
    content = turn["content"]
    assert ([text_part(content)] if isinstance(content, str) else content) == blocks


@given(st.sampled_from(MODELS), conversations)
@settings(max_examples=150)
def test_results_answer_their_calls(model: str, messages: list[Object]) -> None:
    """Results name the calls of the turn before them, in their order, and no id is used twice."""
    turns = encoded(chat(model, messages=messages))["messages"]
    used: list[str] = []
    for before, turn in zip([{"content": []}, *turns], turns, strict=False):
        calls = [block["id"] for block in blocks(before["content"]) if block["type"] == "tool_use"]
        results = [block["tool_use_id"] for block in blocks(turn["content"]) if block["type"] == "tool_result"]
        assert set(results) <= set(calls)
        assert results == [each for each in calls if each in results]
        used += [block["id"] for block in blocks(turn["content"]) if block["type"] == "tool_use"]
    assert len(used) == len(set(used))
    assert all(each.isascii() and each.replace("_", "a").replace("-", "a").isalnum() for each in used)

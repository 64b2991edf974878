"""Thinking and sampling: what each model takes, and thinking that comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.anthropic import chat, encoded, ignored, sent, upstream

from trestle.errors import CallError
from trestle.v1 import chat_pb2
from worker.families.anthropic import FAMILY
from worker.families.anthropic.models import TraitsPatch, traits_of

Object = dict[str, Any]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALLS = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
LOOP: list[Object] = [
    {"role": "user", "content": "Go"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "a", "content": "done"},
]
ADAPTIVE = {"type": "adaptive"}
SHOWN = {"type": "adaptive", "display": "summarized"}


def budget(tokens: int) -> Object:
    return {"type": "enabled", "budget_tokens": tokens}


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "word"),
    [
        ("claude-3-5-haiku-20241022", "high", None, None),
        ("claude-3-7-sonnet-20250219", "minimal", budget(1024), None),
        ("claude-sonnet-4-5", "medium", budget(8192), None),
        ("claude-sonnet-4-5", "none", None, None),
        ("claude-haiku-4-5-20251001", "max", budget(16000), None),
        ("claude-opus-4-5", "xhigh", budget(16000), "high"),
        ("claude-sonnet-4-6", "xhigh", ADAPTIVE, "high"),
        ("claude-opus-4-6", "max", ADAPTIVE, "max"),
        ("claude-opus-4-6", "none", None, None),
        ("claude-opus-4-7", "minimal", SHOWN, "low"),
        ("claude-opus-5", "xhigh", SHOWN, "xhigh"),
        ("claude-opus-5", "none", {"type": "disabled"}, None),
        ("claude-sonnet-5-5", "none", {"type": "between_tools"}, None),
        ("claude-opus-5-5", "none", None, "low"),
        ("claude-sonnet-5-5", "xhigh", SHOWN, "xhigh"),
        ("claude-fable-5", "high", SHOWN, "high"),
        ("claude-opus-4-8", "extreme", SHOWN, "extreme"),
    ],
)
def test_effort_as_the_model_has_it(model: str, effort: str, thinking: Object | None, word: str | None) -> None:
    body = encoded(chat(model, reasoning_effort=effort))
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == word


@pytest.mark.parametrize(("model", "off"), [("claude-sonnet-5", "disabled"), ("claude-sonnet-5-5", "between_tools")])
def test_effort_is_high_at_most_where_thinking_is_off(model: str, off: str) -> None:
    """Here for a loop of calls that came back without its seals; the API refuses more."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    loop = [
        {"role": "user", "content": "Go"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    body = encoded(chat(model, reasoning_effort="xhigh", messages=loop, tools=TOOLS))
    assert (body["thinking"], body["output_config"]) == ({"type": off}, {"effort": "high"})


@pytest.mark.parametrize(
    ("name", "traits"),
    [
        ("us.anthropic.claude-opus-4-5-20251101-v1:0", traits_of("claude-opus-4-5")),
        ("anthropic/claude-sonnet-4.6", traits_of("claude-sonnet-4-6")),
        ("claude-opus-4-1@20250805", traits_of("claude-opus-4-1")),
        ("claude-sonnet-4-20250514", traits_of("claude-sonnet-4-0")),
        ("claude-4-sonnet-20250514", traits_of("claude-sonnet-4-0")),
        ("claude-opus-7", traits_of("claude-opus-5-5")),
        ("claude-mythos-preview", traits_of("claude-mythos-5")),
    ],
)
def test_one_model_by_any_of_its_names(name: str, traits: object) -> None:
    assert traits_of(name) == traits


class TestBudget:
    def test_leaves_room_for_the_answer(self) -> None:
        body = sent(reasoning_effort="high", max_tokens=6000)
        assert (body["thinking"], body["max_tokens"]) == (budget(3000), 6000)

    def test_is_the_least_where_half_would_be_less(self) -> None:
        assert sent(reasoning_effort="low", max_completion_tokens=1500)["thinking"] == budget(1024)

    def test_cannot_be_within_a_small_limit(self) -> None:
        request = chat(reasoning_effort="low", max_tokens=1024)
        assert "thinking" not in encoded(request)
        assert ignored(request) == ["reasoning_effort"]

    def test_an_unknown_word_has_none(self) -> None:
        with pytest.raises(CallError) as caught:
            encoded(chat(reasoning_effort="extreme"))
        assert caught.value.param == "reasoning_effort"

    @pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
    def test_is_not_spent_where_a_call_is_forced(self, choice: Any) -> None:
        request = chat(reasoning_effort="low", tools=TOOLS, tool_choice=choice)
        assert "thinking" not in encoded(request)
        assert ignored(request) == ["reasoning_effort"]
        adaptive = encoded(chat("claude-opus-4-6", reasoning_effort="low", tools=TOOLS, tool_choice=choice))
        assert adaptive["thinking"] == ADAPTIVE


class TestLimit:
    def test_default_by_model_or_by_configuration(self) -> None:
        assert sent()["max_tokens"] == 32_000
        assert sent("claude-3-opus-20240229")["max_tokens"] == 4096
        assert encoded(chat(), upstream(max_tokens=1000))["max_tokens"] == 1000

    def test_the_newer_name_wins_and_minus_one_is_no_limit(self) -> None:
        assert sent(max_tokens=5, max_completion_tokens=7)["max_tokens"] == 7
        assert sent(max_tokens=-1)["max_tokens"] == 32_000

    def test_has_room_for_the_budget_the_client_names(self) -> None:
        assert sent(thinking=budget(40_000))["max_tokens"] > 40_000
        assert sent(thinking=budget(2_000), max_tokens=3000)["max_tokens"] == 3000


def signed(request: chat_pb2.ChatRequest, *blocks: chat_pb2.ReasoningBlock) -> chat_pb2.ChatRequest:
    """The request, with these blocks of thinking sent back in its assistant's turn."""
    request.messages[1].reasoning.extend(blocks)
    return request


class TestThinkingThatComesBack:
    SEALED = chat_pb2.ReasoningBlock(text="Hm.", signature="sig")
    REDACTED = chat_pb2.ReasoningBlock(redacted=b"enc")

    def test_stands_before_what_it_led_to(self) -> None:
        request = signed(chat(reasoning_effort="low", messages=LOOP, tools=TOOLS), self.SEALED, self.REDACTED)
        body = encoded(request)
        assert body["thinking"] == budget(4096)
        assert body["messages"][1]["content"][:2] == [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "redacted_thinking", "data": "enc"},
        ]

    def test_keeps_its_place_between_the_parts(self) -> None:
        messages = [LOOP[0], {**LOOP[1], "content": "I will."}, LOOP[2]]
        later = chat_pb2.ReasoningBlock(text="Now.", signature="sig2", position=1)
        request = signed(chat(reasoning_effort="low", messages=messages, tools=TOOLS), self.SEALED, later)
        kinds = [block["type"] for block in encoded(request)["messages"][1]["content"]]
        assert kinds == ["thinking", "text", "thinking", "tool_use"]

    @pytest.mark.parametrize(
        ("model", "thinking"),
        [
            ("claude-sonnet-4-5", None),
            ("claude-opus-4-6", None),
            ("claude-opus-5", {"type": "disabled"}),
            ("claude-opus-5-5", SHOWN),
        ],
    )
    def test_a_client_that_does_not_send_it_gets_an_answer(self, model: str, thinking: Object | None) -> None:
        """Thinking stays off for that call, where it can be."""
        messages = [LOOP[0], {**LOOP[1], "reasoning_content": "Hm."}, LOOP[2]]
        body = sent(model, reasoning_effort="high", messages=messages, tools=TOOLS)
        assert body.get("thinking") == thinking
        assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]

    def test_the_whole_loop_is_one_turn(self) -> None:
        """Only its beginning carries the seal; a second step without thinking of its own is none that was lost."""
        request = signed(chat(reasoning_effort="low", messages=[*LOOP, *LOOP[1:]], tools=TOOLS), self.SEALED)
        assert encoded(request)["thinking"] == budget(4096)

    def test_a_new_question_thinks_again(self) -> None:
        messages = [*LOOP, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "More"}]
        assert sent(reasoning_effort="low", messages=messages, tools=TOOLS)["thinking"] == budget(4096)

    def test_is_left_out_where_there_is_no_thinking(self) -> None:
        request = signed(chat(messages=LOOP, tools=TOOLS), self.SEALED)
        assert [block["type"] for block in encoded(request)["messages"][1]["content"]] == ["tool_use"]

    def test_the_clients_own_thinking_member_too(self) -> None:
        request = chat(thinking=budget(2000), messages=LOOP, tools=TOOLS)
        assert "thinking" not in encoded(request)
        assert ignored(request) == ["thinking"]
        assert encoded(signed(request, self.SEALED))["thinking"] == budget(2000)

    def test_effort_is_no_more_than_it_may_be_without_thinking(self) -> None:
        body = sent("claude-opus-5", reasoning_effort="max", messages=LOOP, tools=TOOLS)
        assert (body["thinking"], body["output_config"]) == ({"type": "disabled"}, {"effort": "high"})


@pytest.mark.parametrize(
    ("model", "asked", "taken", "left_out"),
    [
        ("claude-sonnet-4-0", {"temperature": 0.7, "top_p": 0.3}, {"temperature": 0.7, "top_p": 0.3}, []),
        ("claude-sonnet-4-0", {"temperature": 0.7, "top_k": 50}, {"temperature": 0.7, "top_k": 50}, []),
        ("claude-sonnet-4-0", {"temperature": 1.5}, {"temperature": 1.0}, ["temperature"]),
        ("claude-sonnet-4-5", {"temperature": 0.7, "top_p": 0.3}, {"temperature": 0.7}, ["top_p"]),
        ("claude-sonnet-4-5", {"top_p": 0.3}, {"top_p": 0.3}, []),
        ("claude-sonnet-4-5", {"temperature": 1, "top_p": 0.3}, {"top_p": 0.3}, []),
        ("claude-sonnet-4-5", {"temperature": 0, "reasoning_effort": "low"}, {}, ["temperature"]),
        ("claude-sonnet-4-0", {"top_p": 0.97, "top_k": 5, "reasoning_effort": "low"}, {"top_p": 0.97}, ["top_k"]),
        ("claude-opus-4-7", {"temperature": 1, "top_p": 1}, {}, []),
        ("claude-opus-5", {"temperature": 0.2, "top_p": 0.5, "top_k": 5}, {}, ["temperature", "top_p", "top_k"]),
    ],
)
def test_sampling_as_the_model_takes_it(model: str, asked: Object, taken: Object, left_out: list[str]) -> None:
    request = chat(model, **asked)
    body = encoded(request)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == taken
    assert ignored(request) == left_out


def test_no_model_samples_in_the_newer_version_of_the_api() -> None:
    to = upstream(api_version="2026-10-21")
    request = chat("claude-sonnet-4-0", temperature=0.5)
    assert "temperature" not in encoded(request, to)
    assert ignored(request, to) == ["temperature"]


def test_configuration_corrects_what_a_name_does_not_tell() -> None:
    traits = {"claude-": TraitsPatch(max_tokens=1), "claude-next": TraitsPatch(thinking="none", max_tokens=2)}
    to = upstream(traits=traits)
    body = encoded(chat("claude-next-1", reasoning_effort="high"), to)
    assert (body["max_tokens"], "thinking" in body) == (2, False)
    assert json.loads(FAMILY.encode_chat(chat("claude-x"), to).body)["max_tokens"] == 1

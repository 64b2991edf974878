"""Answers that the recordings do not hold: citations, refusals, seals, and everything that can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import recordings
from support.anthropic import chat, decode, fold, message, streamed

from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2

Object = dict[str, Any]
Answer = Callable[[Object], AnswerFold]


@pytest.fixture(params=["stream", "whole"])
def answer(request: pytest.FixtureRequest) -> Answer:
    """The fold of an answer, streamed or in one piece: the two must not differ."""
    stream = request.param == "stream"

    def read(whole: Object) -> AnswerFold:
        data = streamed(whole) if stream else json.dumps(whole).encode()
        return fold(decode([data], chat(stream=stream)))

    return read


class TestBlocks:
    def test_citations_are_annotations_and_kept(self, answer: Answer) -> None:
        web = {
            "type": "web_search_result_location",
            "url": "https://example.com/a",
            "title": "A",
            "encrypted_index": "x",
            "cited_text": "so",
        }
        page = {"type": "char_location", "cited_text": "so", "document_index": 0, "start_char_index": 0}
        whole = message(
            {"type": "text", "text": "I read that "},
            {"type": "text", "text": "it is so", "citations": [web, page]},
            {"type": "text", "text": "."},
        )
        choice = answer(whole).choices[0]
        span = {"start_index": 12, "end_index": 20}
        assert choice.text == "I read that it is so."
        assert choice.text[12:20] == "it is so"
        assert json.loads(choice.delta_extra["annotations"]) == [
            {"type": "url_citation", "url_citation": {**span, "url": "https://example.com/a", "title": "A"}}
        ]
        assert json.loads(choice.delta_extra["citations"]) == [
            {"index": 0, **span, "citation": web},
            {"index": 1, **span, "citation": page},
        ]

    def test_a_refusal_says_why(self, answer: Answer) -> None:
        details = {"type": "refusal", "category": "bio", "explanation": "It would not be safe."}
        choice = answer(message({"type": "text", "text": "Well"}, stop="refusal", stop_details=details)).choices[0]
        assert (choice.text, choice.refusal) == ("Well", "It would not be safe.")
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_CONTENT_FILTER
        assert json.loads(choice.extra["stop_details"]) == details

    def test_seals_block_by_block(self, answer: Answer) -> None:
        whole = message(
            {"type": "thinking", "thinking": "One.", "signature": "s1"},
            {"type": "redacted_thinking", "data": "enc"},
            {"type": "thinking", "thinking": "", "signature": "s2"},
            {"type": "text", "text": "Hello"},
        )
        blocks = answer(whole).choices[0].reasoning
        assert [(b.text, b.signature, b.redacted, b.position) for b in blocks] == [
            ("One.", "s1", b"", 0),
            ("", "", b"enc", 0),
            ("", "s2", b"", 0),
        ]

    def test_blocks_without_a_word_are_kept(self, answer: Answer) -> None:
        asked = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "q"}}
        found = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
        choice = answer(message(asked, found, {"type": "text", "text": "Found."}, stop="pause_turn")).choices[0]
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 0, **asked}, {"index": 1, **found}]
        assert choice.finish is not None
        assert (choice.finish.reason, choice.finish.upstream_reason) == (chat_pb2.FINISH_REASON_STOP, "pause_turn")

    def test_the_sequence_that_stopped_it(self, answer: Answer) -> None:
        choice = answer(message({"type": "text", "text": "A"}, stop="stop_sequence", stop_sequence="B")).choices[0]
        assert choice.extra == {"stop_sequence": '"B"'}

    def test_who_called_a_tool_unless_it_was_the_model(self, answer: Answer) -> None:
        call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"n": 1}}
        other = {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}
        direct = {**call, "caller": {"type": "direct"}}
        whole = message(direct, {**call, "id": "toolu_2", "caller": other}, stop="tool_use")
        one, two = answer(whole).choices[0].calls.values()
        assert one.extra == {}
        assert json.loads(two.extra["caller"]) == other

    def test_an_unknown_end_keeps_its_word(self, answer: Answer) -> None:
        finish = answer(message({"type": "text", "text": "A"}, stop="bored")).choices[0].finish
        assert finish is not None
        assert (finish.reason, finish.upstream_reason) == (chat_pb2.FINISH_REASON_OTHER, "bored")

    def test_an_empty_answer_is_one(self, answer: Answer) -> None:
        choice = answer(message()).choices[0]
        assert (choice.text, choice.calls) == (None, {})


said = st.text(min_size=1, max_size=12)
BLOCKS = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, said),
    st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, said),
    st.builds(
        lambda name, given: {"type": "tool_use", "id": "toolu_1", "name": name, "input": given},
        st.sampled_from("fg"),
        st.dictionaries(said, said | st.integers(-9, 9), max_size=2),
    ),
)


@given(st.lists(BLOCKS, max_size=6), st.integers(1, 5), st.integers(0, 99))
def test_a_stream_says_what_the_whole_says(content: list[Object], size: int, seed: int) -> None:
    """Whatever is said, in pieces of whatever size, cut wherever: nothing is lost and nothing moves."""
    whole = message(*content)
    pieces = recordings.cuts(streamed(whole, size), seed)
    read, streamed_ = fold(decode([json.dumps(whole).encode()], chat())), fold(decode(pieces, chat(stream=True)))
    for answer in (read, streamed_):
        (choice,) = answer.choices.values()
        assert (choice.text or "") == "".join(block.get("text", "") for block in content)
        assert "".join(block.text for block in choice.reasoning) == "".join(b.get("thinking", "") for b in content)
        assert [(call.name, json.loads(call.arguments)) for call in choice.calls.values()] == [
            (block["name"], block["input"]) for block in content if block["type"] == "tool_use"
        ]
    assert read.usage == streamed_.usage


class TestUsage:
    def test_a_compaction_is_counted(self, answer: Answer) -> None:
        """It is billed, and the totals leave it out; an adviser's run is another model's."""
        runs = [
            {"type": "compaction", "input_tokens": 100, "cache_read_input_tokens": 55_096, "output_tokens": 83},
            {"type": "advisor_message", "model": "other", "input_tokens": 5000, "output_tokens": 5000},
            {"type": "message", "input_tokens": 181, "output_tokens": 8},
        ]
        usage = {"input_tokens": 181, "cache_read_input_tokens": 0, "output_tokens": 8, "iterations": runs}
        read = answer(message({"type": "text", "text": "A"}, usage=usage)).usage
        assert read is not None
        assert (read.input_tokens, read.output_tokens, read.cache_read_tokens) == (55_377, 91, 55_096)
        assert json.loads(read.extra_json)["iterations"] == runs

    def test_the_cache_is_part_of_the_input(self, answer: Answer) -> None:
        usage = {
            "input_tokens": 10,
            "output_tokens": 7,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 1000,
            "service_tier": "priority",
            "speed": "fast",
        }
        read = answer(message({"type": "text", "text": "A"}, usage=usage))
        assert read.usage is not None
        assert read.started is not None
        assert (read.usage.input_tokens, read.usage.output_tokens) == (1110, 7)
        assert (read.usage.cache_read_tokens, read.usage.cache_write_tokens) == (100, 1000)
        assert json.loads(read.usage.extra_json) == {"speed": "fast"}
        assert read.started.service_tier == "priority"

    def test_thinking_is_part_of_the_output(self) -> None:
        usage = {"input_tokens": 1, "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 5}}
        read = fold(decode([json.dumps(message(usage=usage)).encode()], chat()))
        assert read.usage is not None
        assert (read.usage.output_tokens, read.usage.reasoning_tokens) == (7, 5)

    def test_is_guessed_where_nobody_counted(self) -> None:
        whole = message({"type": "text", "text": "A" * 40})
        del whole["usage"]
        usage = fold(decode([json.dumps(whole).encode()], chat())).usage
        assert usage is not None
        assert (usage.output_tokens, usage.estimated) == (10, True)

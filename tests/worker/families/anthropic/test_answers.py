"""Answers that the recordings do not hold: citations, refusals, seals, and everything that can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import recordings
from support.anthropic import UPSTREAM, chat, decode, events, fold, message, streamed

from trestle.errors import CallError, Reason
from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2
from worker.families.anthropic import FAMILY

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


BEGUN: list[Object] = [
    {"type": "message_start", "message": message(usage={"input_tokens": 10, "output_tokens": 1})},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "A" * 400}},
]


def failing(*found: Object) -> CallError:
    with pytest.raises(CallError) as caught:
        decode([events(*found)], chat(stream=True))
    return caught.value


class TestFailures:
    @pytest.mark.parametrize(
        ("kind", "reason"),
        [
            ("overloaded_error", Reason.UPSTREAM_OVERLOADED),
            ("rate_limit_error", Reason.UPSTREAM_RATE_LIMITED),
            ("api_error", Reason.UPSTREAM_FAILED),
            ("timeout_error", Reason.UPSTREAM_TIMEOUT),
            ("invalid_request_error", Reason.INVALID_REQUEST),
            ("authentication_error", Reason.UPSTREAM_CREDENTIAL),
            ("new_error", Reason.UPSTREAM_FAILED),
        ],
    )
    @pytest.mark.parametrize("before", [[], BEGUN])
    def test_an_error_inside_the_stream(self, before: list[Object], kind: str, reason: Reason) -> None:
        error = failing(*before, {"type": "error", "error": {"type": kind, "message": "Overloaded"}})
        assert (error.reason, error.type) == (reason, kind)
        assert (error.usage is not None) is bool(before)

    def test_an_error_in_a_form_of_its_own(self) -> None:
        with pytest.raises(CallError) as caught:
            decode([b'event: error\ndata: {"error": "Out of order"}\n\n'], chat(stream=True))
        assert (caught.value.reason, caught.value.message) == (Reason.UPSTREAM_FAILED, "Out of order")

    def test_an_error_for_an_answer(self) -> None:
        body = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        with pytest.raises(CallError) as caught:
            decode([json.dumps(body).encode()], chat())
        assert caught.value.reason is Reason.UPSTREAM_OVERLOADED

    def test_a_cut_tells_what_was_used(self) -> None:
        """The input by the upstream's count, the output by ours: more than the one token it had told of."""
        error = failing(*BEGUN)
        assert error.reason is Reason.UPSTREAM_TRUNCATED
        assert error.usage is not None
        assert (error.usage.input_tokens, error.usage.output_tokens, error.usage.estimated) == (10, 100, True)

    def test_a_connection_that_breaks_finds_the_same_usage(self) -> None:
        decoder = FAMILY.chat_decoder(chat(stream=True), UPSTREAM)
        response = chat_pb2.ChatResponse()
        for event in BEGUN:
            decoder.feed((event["type"], json.dumps(event).encode()), response.chunks)
        assert decoder.usage is not None
        assert decoder.usage.output_tokens == 100

    def test_nothing_at_all_is_a_cut(self) -> None:
        assert failing().reason is Reason.UPSTREAM_TRUNCATED

    @pytest.mark.parametrize(
        "found",
        [
            [BEGUN[0], {"type": "message_start", "message": {**BEGUN[0]["message"], "id": "msg_2"}}],
            [BEGUN[0], BEGUN[1], BEGUN[0]],
            [BEGUN[1]],
            [BEGUN[0], BEGUN[2]],
            [BEGUN[0], BEGUN[1], BEGUN[1]],
            [BEGUN[0], {"type": "content_block_stop", "index": 3}],
            [BEGUN[0], {"type": "content_block_start", "index": 0, "content_block": {"text": "no type"}}],
            [{"type": "message_stop"}],
            [{"type": "message_delta", "delta": {"stop_reason": "end_turn"}}],
        ],
    )
    def test_an_impossible_order_is_a_broken_protocol(self, found: list[Object]) -> None:
        assert failing(*found).reason is Reason.UPSTREAM_PROTOCOL

    @pytest.mark.parametrize(
        "data", [b"data: {\n\n", b"data: []\n\n", b"event: content_block_delta\ndata: {}\n\n", b"data: \xff\n\n"]
    )
    def test_what_cannot_be_read_is_a_broken_protocol(self, data: bytes) -> None:
        with pytest.raises(CallError) as caught:
            decode([data], chat(stream=True))
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"id": "msg_1"}'])
    def test_an_answer_that_is_none(self, body: bytes) -> None:
        with pytest.raises(CallError) as caught:
            decode([body], chat())
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


class TestNews:
    """What the API may add, by its own terms, must not stop an answer."""

    def test_new_events_and_pieces(self) -> None:
        new: list[Object] = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "glow_delta", "glow": 1}},
            {"type": "moonrise", "phase": 1},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}},
            {"type": "message_stop"},
        ]
        choice = fold(decode([events(*BEGUN, *new)], chat(stream=True))).choices[0]
        assert choice.text == "A" * 400
        assert json.loads(choice.delta_extra["content_blocks"]) == [
            {"index": 0, "type": "text", "deltas": [{"type": "glow_delta", "glow": 1}]}
        ]

    @pytest.mark.parametrize("content", ["They met.", None], ids=["done", "failed"])
    def test_the_seal_of_a_compaction_is_kept(self, content: str | None) -> None:
        """The API wants it back as it was; so says the SDK's BetaCompactionContentBlockDelta."""
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": None}}
        piece = {"type": "compaction_delta", "content": content, "encrypted_content": "EqOP", "other": 1}
        found: list[Object] = [block, {"type": "content_block_delta", "index": 0, "delta": piece}]
        choice = fold(decode([events(BEGUN[0], *found, {"type": "message_stop"})], chat(stream=True))).choices[0]
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 0, **piece, "type": "compaction"}]

    def test_a_compaction_is_put_together(self) -> None:
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "compaction", "content": None}}
        pieces: list[Object] = [
            {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": text}}
            for text in ("They ", "met.")
        ]
        end: list[Object] = [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
        choice = fold(decode([events(BEGUN[0], block, *pieces, *end)], chat(stream=True))).choices[0]
        assert json.loads(choice.delta_extra["content_blocks"]) == [
            {"index": 0, "type": "compaction", "content": "They met."}
        ]

    def test_a_message_that_begins_twice_with_one_id(self) -> None:
        """As some compatible endpoints do; litellm's issue 32478."""
        rest = [*BEGUN[1:], {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
        chunks = decode([events(BEGUN[0], BEGUN[0], *rest)], chat(stream=True))
        assert [chunk.WhichOneof("event") for chunk in chunks].count("started") == 1
        assert fold(chunks).choices[0].text == "A" * 400

    @pytest.mark.parametrize("again", [False, True], ids=["once", "and as events"])
    def test_blocks_that_stand_in_the_message_as_it_begins(self, again: bool) -> None:
        """So comes an answer that follows a call of a server's tool; langchain's issue 34406."""
        result = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"stdout": "First"}}
        caller = {"type": "code_execution_20250825", "tool_id": "srvtoolu_1"}
        call = {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"id": 7}, "caller": caller}
        whole = message(result, call, stop="tool_use")
        blocks = [{"type": "content_block_start", "index": i, "content_block": b} for i, b in enumerate([result, call])]
        found = [{"type": "message_start", "message": whole}, *(blocks if again else ()), {"type": "message_stop"}]
        read = fold(decode([events(*found)], chat(stream=True)))
        choice = read.choices[0]
        assert [(each.id, each.name, each.arguments) for each in choice.calls.values()] == [
            ("toolu_1", "look_up", '{"id": 7}')
        ]
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 0, **result}]
        assert choice.finish is not None
        assert choice.finish.reason == chat_pb2.FINISH_REASON_TOOL_CALLS

    def test_what_follows_blocks_of_the_beginning(self) -> None:
        begun = {"type": "message_start", "message": message({"type": "text", "text": "One, "})}
        rest: list[Object] = [
            {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "two."}},
            {"type": "message_stop"},
        ]
        assert fold(decode([events(begun, *rest)], chat(stream=True))).choices[0].text == "One, two."

    def test_events_without_names(self) -> None:
        lines = streamed(message({"type": "text", "text": "Hello"})).split(b"\n")
        data = b"".join(line + b"\n\n" for line in lines if line.startswith(b"data:"))
        assert fold(decode([data], chat(stream=True))).choices[0].text == "Hello"

    def test_members_of_the_message(self) -> None:
        container = {"id": "container_1", "expires_at": "2026-04-24T11:13:36Z"}
        read = fold(decode([json.dumps(message(container=container, stop_details=None)).encode()], chat()))
        assert {name: json.loads(value) for name, value in read.extra.items()} == {"container": container}

    def test_members_of_a_streams_last_words(self) -> None:
        """Which stand beside the delta there."""
        edits = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 2}]}
        end: list[Object] = [{**DELTA, "context_management": edits}, {"type": "message_stop"}]
        read = fold(decode([events(*BEGUN, *end)], chat(stream=True)))
        assert {name: json.loads(value) for name, value in read.extra.items()} == {"context_management": edits}

    @pytest.mark.parametrize("member", [{"text": {"a": 1}}, {"content": [1]}, {"signature": 5}])
    def test_new_pieces_with_members_of_other_kinds(self, member: Object) -> None:
        piece = {"type": "glow_delta", **member}
        new: list[Object] = [{"type": "content_block_delta", "index": 0, "delta": piece}, DELTA]
        choice = fold(decode([events(*BEGUN, *new, {"type": "message_stop"})], chat(stream=True))).choices[0]
        assert json.loads(choice.delta_extra["content_blocks"]) == [{"index": 0, "type": "text", "deltas": [piece]}]

    def test_a_known_piece_with_a_member_of_another_kind(self) -> None:
        piece = {"type": "text_delta", "text": {"a": 1}}
        error = failing(*BEGUN, {"type": "content_block_delta", "index": 0, "delta": piece})
        assert error.reason is Reason.UPSTREAM_PROTOCOL


DELTA: Object = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 3}}


class TestCompatible:
    """What endpoints of others leave out or add."""

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "thinking", "thinking": "Hm.", "signature": "s"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
            {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"type": "x"}]},
        ],
    )
    @pytest.mark.parametrize("times", [0, 2])
    def test_blocks_whose_end_comes_never_or_twice(self, block: Object, times: int) -> None:
        data = streamed(message(block))
        end = events({"type": "content_block_stop", "index": 0})
        assert data.count(end) == 1
        strange, usual = (fold(decode([d], chat(stream=True))) for d in (data.replace(end, end * times), data))
        assert strange.choices == usual.choices

    @pytest.mark.parametrize(
        "usage",
        [
            {},
            {"input_tokens": None, "output_tokens": None},
            {"input_tokens": -1, "output_tokens": -1},
            {"output_tokens": 1e300},
        ],
    )
    def test_a_usage_that_counts_nothing(self, usage: Object) -> None:
        whole = message({"type": "text", "text": "A" * 40}, usage=usage)
        start: Object = {"type": "message_start", "message": {**whole, "content": []}}
        stream = events(start, *BEGUN[1:], {**DELTA, "usage": usage}, {"type": "message_stop"})
        for data, output, streams in ((json.dumps(whole).encode(), 10, False), (stream, 100, True)):
            told = fold(decode([data], chat(stream=streams))).usage
            assert told is not None
            assert (told.output_tokens, told.estimated) == (output, True)

    def test_an_output_that_is_never_told(self) -> None:
        """The one token of the beginning is not the answer's."""
        end: list[Object] = [{**DELTA, "usage": None}, {"type": "message_stop"}]
        told = fold(decode([events(*BEGUN, *end)], chat(stream=True))).usage
        assert told is not None
        assert (told.input_tokens, told.output_tokens, told.estimated) == (10, 100, True)

    @pytest.mark.parametrize("nothing", [b"data: \n\n", b"data: [DONE]\n\n"])
    def test_events_of_nothing(self, nothing: bytes) -> None:
        data = nothing + streamed(message({"type": "text", "text": "Hello"})).replace(b"\n\n", b"\n\n" + nothing)
        assert fold(decode([data], chat(stream=True))).choices[0].text == "Hello"

    @pytest.mark.parametrize("nothing", [b"data: [DONE]\n\n", b""])
    def test_another_formats_end_is_none(self, nothing: bytes) -> None:
        with pytest.raises(CallError) as caught:
            decode([events(*BEGUN, DELTA) + nothing], chat(stream=True))
        assert caught.value.reason is Reason.UPSTREAM_TRUNCATED

    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ({"error": {"type": "overloaded_error", "message": "No."}}, Reason.UPSTREAM_OVERLOADED),
            ({"code": 500, "msg": "No.", "success": False}, Reason.UPSTREAM_FAILED),
        ],
    )
    def test_an_error_that_does_not_say_so(self, body: Object, reason: Reason) -> None:
        with pytest.raises(CallError) as caught:
            decode([json.dumps(body).encode()], chat())
        assert (caught.value.reason, caught.value.message) == (reason, "No.")

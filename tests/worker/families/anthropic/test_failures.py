"""Answers that fail, that hold what is new, and that others' endpoints send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.anthropic import UPSTREAM, chat, decode, events, fold, message, streamed

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.anthropic import FAMILY

Object = dict[str, Any]

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


class TestHalves:
    """Escapes of half a character, which a compatible endpoint that cuts in UTF-16 sends."""

    def test_in_a_stream(self) -> None:
        deltas = [{"type": "text_delta", "text": text} for text in ("a\ud83d", "b")]
        found = [{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas]
        begun = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": "\ude00"}}
        ends: list[Object] = [{"type": "content_block_stop", "index": 0}, {"type": "message_delta", "delta": {}}]
        answer = fold(decode([events(BEGUN[0], begun, *found, *ends, {"type": "message_stop"})], chat(stream=True)))
        assert answer.choices[0].text == "\ufffda\ufffdb"

    def test_in_one_piece(self) -> None:
        body = json.dumps(message({"type": "text", "text": "cut \ud83d"})).encode()
        assert fold(decode([body], chat())).choices[0].text == "cut \ufffd"

    def test_in_a_piece_of_a_newer_type(self) -> None:
        new = {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "text": {"a": "\ud83d"}}}
        answer = fold(decode([events(*BEGUN, new, {"type": "message_stop"})], chat(stream=True)))
        (block,) = json.loads(answer.choices[0].delta_extra["content_blocks"])
        assert block["deltas"] == [{"type": "new_delta", "text": {"a": "\ufffd"}}]

"""What vendors say in places of their own: usage, errors, whole messages and ends that other vendors put elsewhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.openai import JSON, STOP, call, calls, chunk, decoder_for, feed, stream, whole

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

USAGE: JSON = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TOLD = chat_pb2.Usage(input_tokens=5, output_tokens=2)


def with_choice(event: JSON, **members: Any) -> JSON:
    """The event with more members in its choice."""
    return {**event, "choices": [{**event["choices"][0], **members}]}


class TestInAChoice:
    def test_usage(self) -> None:
        """Where Moonshot puts it."""
        answer = stream(chunk({"content": "a"}), with_choice(STOP, usage=USAGE))
        assert answer.usage == TOLD
        assert json.loads(answer.choices[0].extra["usage"]) == USAGE

    def test_the_answers_own_usage_counts_before_it(self) -> None:
        other = {"prompt_tokens": 1, "completion_tokens": 1}
        assert stream(chunk({"content": "a"}), with_choice({**STOP, "usage": USAGE}, usage=other)).usage == TOLD

    @pytest.mark.parametrize("usage", [None, [], "none"])
    def test_a_usage_that_is_none(self, usage: Any) -> None:
        told = stream(chunk({"content": "a"}), with_choice(STOP, usage=usage)).usage
        assert told is not None
        assert told.estimated

    def test_an_error(self) -> None:
        """OpenRouter's answers in one piece say there what went wrong."""
        failed = {"code": 429, "message": "Slow down."}
        choice = {"index": 0, "message": {"content": "So"}, "finish_reason": "error", "error": failed}
        with pytest.raises(CallError) as caught:
            whole({}, choices=[choice], usage=USAGE)
        assert (caught.value.reason, caught.value.message) == (Reason.UPSTREAM_RATE_LIMITED, "Slow down.")
        assert caught.value.usage == TOLD

    @pytest.mark.parametrize("nothing", [None, "", False])
    def test_no_error(self, nothing: Any) -> None:
        assert stream(with_choice(chunk({"content": "a"}, "stop"), error=nothing)).choices[0].text == "a"

    @pytest.mark.parametrize("index", [None, 0])
    def test_numbers_that_tell_nothing_apart(self, index: int | None) -> None:
        choices = [{"index": index, "message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
        answer = whole({}, n=2, choices=choices)
        assert [answer.choices[i].text for i in sorted(answer.choices)] == ["a", "b"]

    def test_pieces_of_the_only_choice(self) -> None:
        """GitHub Copilot's way with Claude: the text is one, the calls are the next."""
        said: list[JSON] = [{"content": "Let me see. "}, {"content": "So."}, call(None, "c", "f", "{}")]
        choices = [{"message": message, "finish_reason": "tool_calls"} for message in said]
        answer = whole({}, choices=choices)
        assert list(answer.choices) == [0]
        assert (answer.choices[0].text, calls(answer.choices[0])) == ("Let me see. So.", [("c", "f", "{}")])


class TestTheWholeMessageAtTheEnd:
    """As MiniMax sends it, after all its deltas."""

    def test_is_not_told_twice(self) -> None:
        message = {"role": "assistant", "content": "So.", "reasoning_content": "Hm", "audio_content": ""}
        end = {"id": "a", "choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": USAGE}
        pieces = [chunk({"reasoning_content": "Hm"}), chunk({"content": "S"}), chunk({"content": "o."})]
        answer = stream(*pieces, end)
        choice = answer.choices[0]
        assert (choice.text, [block.text for block in choice.reasoning]) == ("So.", ["Hm"])
        assert choice.delta_extra == {"audio_content": '""'}
        assert answer.usage == TOLD

    def test_after_many_pieces(self) -> None:
        pieces = [chunk({"content": text}) for text in "abcdefgh"]
        end = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "abcdefgh"}}]}
        assert stream(*pieces, end).choices[0].text == "abcdefgh"

    def test_what_no_delta_told_is_told(self) -> None:
        listed = call(None, "c", "f", "{}")
        end = {"choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"content": "a", **listed}}]}
        choice = stream(chunk({"content": "a"}), end).choices[0]
        assert (choice.text, calls(choice)) == ("a", [("c", "f", "{}")])


class TestUsage:
    @pytest.mark.parametrize("usage", [{}, {"total_tokens": 0, "total_characters": 0}, {"prompt_tokens": None}])
    def test_that_counts_nothing_is_none(self, usage: JSON) -> None:
        told = stream(chunk({"content": "a" * 40}, usage=usage), STOP).usage
        assert told is not None
        assert (told.estimated, told.output_tokens) == (True, 10)

    def test_a_total_alone(self) -> None:
        told = whole({"content": "a" * 40}, usage={"total_tokens": 97}).usage
        assert told == chat_pb2.Usage(input_tokens=87, output_tokens=10, estimated=True)

    @pytest.mark.parametrize("missing", ["prompt_tokens", "completion_tokens", "total_tokens"])
    def test_what_follows_from_the_others(self, missing: str) -> None:
        usage = {name: count for name, count in USAGE.items() if name != missing}
        assert whole({"content": "a"}, usage=usage).usage == TOLD


    @pytest.mark.parametrize("name", ["cached_tokens", "prompt_cache_hit_tokens"])
    @pytest.mark.parametrize("details", [None, {}, {"cached_tokens": 4}])
    def test_parts_beside_the_totals(self, name: str, details: JSON | None) -> None:
        beside = {name: 3, "reasoning_tokens": 1}
        told = whole({"content": "a"}, usage={**USAGE, **beside, "prompt_tokens_details": details}).usage
        assert told is not None
        assert (told.cache_read_tokens, told.reasoning_tokens) == (4 if details else 3, 1)
        assert json.loads(told.extra_json) == beside

    def test_parts_that_are_none(self) -> None:
        told = whole({"content": "a"}, usage={**USAGE, "cached_tokens": {}, "reasoning_tokens": -1}).usage
        assert told is not None
        assert not told.HasField("cache_read_tokens")
        assert not told.HasField("reasoning_tokens")

    def test_numbers_as_strings(self) -> None:
        usage = {name: str(count) for name, count in USAGE.items()}
        answer = whole({"content": "a"}, usage={**usage, "prompt_tokens_details": {"cached_tokens": "3"}})
        assert answer.usage == chat_pb2.Usage(input_tokens=5, output_tokens=2, cache_read_tokens=3)

    @pytest.mark.parametrize(
        ("created", "known"), [("1760000000", True), ("soon", False), ("-1", False), ("9" * 30, False)]
    )
    def test_an_instant_as_a_string(self, created: str, known: bool) -> None:
        started = stream(chunk({"content": "a"}, "stop", created=created)).started
        assert started is not None
        assert (started.created == 1_760_000_000) is known


class TestEvents:
    @pytest.mark.parametrize("end", ["[DONE]", " [DONE]", "[DONE] ", "[DONE]\t"])
    def test_blanks_around_the_terminal(self, end: str) -> None:
        decoder = decoder_for()
        chunks = feed(decoder, chunk({"content": "a"}, "stop"), end)
        assert decoder.done
        assert chunks[-1].HasField("usage")

    @pytest.mark.parametrize("nothing", ["", " ", "\n", "null"])
    def test_of_nothing(self, nothing: str) -> None:
        assert stream(nothing, chunk({"content": "a"}), nothing, STOP).choices[0].text == "a"

    def test_an_error_in_mere_words(self) -> None:
        with pytest.raises(CallError) as caught:
            decoder_for().feed(("error", b"The engine is gone."), chat_pb2.ChatResponse().chunks)
        assert caught.value.reason is Reason.UPSTREAM_FAILED
        assert caught.value.message.endswith("The engine is gone.")

    @pytest.mark.parametrize(
        ("event", "reason"),
        [
            ({"object": "error", "message": "No.", "type": "BadRequestError", "code": 400}, Reason.INVALID_REQUEST),
            ({"text": "No.", "error_code": 50001}, Reason.UPSTREAM_FAILED),
            ({"error_code": 17, "error_msg": "No."}, Reason.UPSTREAM_FAILED),
            ({"code": "Throttling", "message": "No.", "request_id": "r"}, Reason.UPSTREAM_FAILED),
            ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "No."}}, Reason.UPSTREAM_RATE_LIMITED),
            ({"choices": [], "base_resp": {"status_code": 1027, "status_msg": "No."}}, Reason.CONTENT_REJECTED),
            ({"success": False, "errors": [{"code": 7009, "message": "No."}]}, Reason.UPSTREAM_FAILED),
        ],
    )
    def test_errors_in_forms_of_their_own(self, event: JSON, reason: Reason) -> None:
        """Even where a [DONE] comes after them: what went before is no whole answer."""
        with pytest.raises(CallError) as caught:
            stream(chunk({"content": "a"}), event)
        with pytest.raises(CallError) as in_one_piece:
            whole({}, **{"choices": None, **event})
        for error in (caught.value, in_one_piece.value):
            assert error.reason is reason
            assert "No." in error.message

    @pytest.mark.parametrize(
        "beside",
        [
            {"base_resp": {"status_code": 0, "status_msg": ""}},
            {"code": 0, "message": "ok"},
            {"code": 200, "message": "ok"},
            {"message": "Searching."},
            {"success": True},
            {"error_code": 0},
        ],
    )
    def test_what_is_no_error(self, beside: JSON) -> None:
        answer = stream(chunk({"content": "a"}), {"choices": [], **beside}, STOP)
        assert {name: json.loads(value) for name, value in answer.extra.items()} == beside

    @pytest.mark.parametrize("body", [{"detail": "No."}, {"message": "No."}])
    def test_words_in_place_of_an_answer(self, body: JSON) -> None:
        with pytest.raises(CallError) as caught:
            whole({}, choices=None, **body)
        assert caught.value.message == "No."

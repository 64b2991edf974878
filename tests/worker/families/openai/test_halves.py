"""Characters that an upstream cuts in two, each half an escape of its own, are whole again; a half alone is U+FFFD."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.openai import JSON, STOP, UPSTREAM, call, calls, chunk, decoder_for, feed, stream, whole

from trestle.errors import CallError, Reason
from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2, completion_pb2
from worker.families.openai import FAMILY
from worker.relay import decode
from worker.sse import SseParser

HIGH, LOW, LOST = "\ud83d", "\ude00", "\ufffd"


def texts(*pieces: str, **members: Any) -> list[str]:
    """The pieces of text that a client is told."""
    told = feed(decoder_for(), *(chunk({"content": piece}, **members) for piece in pieces), STOP, "[DONE]")
    return [each.text for each in told if each.text]


def relayed(events: list[JSON], size: int) -> AnswerFold:
    """The answer as the worker reads it, so many bytes at a time."""
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"
    decoder, sse, response = decoder_for(), SseParser(1 << 20), chat_pb2.ChatResponse()
    for at in range(0, len(body), size):
        decode(body[at : at + size], sse, decoder, response.chunks)
    answer = AnswerFold()
    answer.feed(response.chunks)
    answer.close()
    return answer


class TestText:
    def test_halves_are_joined(self) -> None:
        assert texts("ab", HIGH, LOW) == ["ab", "😀"]
        assert texts("a" + HIGH, LOW + "b" + HIGH, LOW) == ["a", "😀b", "😀"]
        assert texts("a" + HIGH, "", LOW) == ["a", "😀"]

    @pytest.mark.parametrize(
        ("pieces", "told"),
        [
            (["ab", "x\udcaf"], ["ab", "x" + LOST]),
            (["a" + HIGH, "b"], ["a", LOST + "b"]),
            (["a" + HIGH, HIGH + "b"], ["a", LOST + LOST + "b"]),
            (["a" + HIGH, HIGH, LOW], ["a", LOST, "😀"]),
            ([LOW + HIGH + "a"], [LOST + LOST + "a"]),
            (["a" + HIGH + "b😀"], ["a" + LOST + "b😀"]),
            (["a", HIGH], ["a", LOST]),
        ],
    )
    def test_one_without_the_other(self, pieces: list[str], told: list[str]) -> None:
        assert texts(*pieces) == told

    @pytest.mark.parametrize("escape", [r"\uD83D", r"\ud83d", r"\uD83d"])
    def test_in_either_case(self, escape: str) -> None:
        first, second = (json.dumps(chunk({"content": "X"})).replace("X", half) for half in (escape, r"\uDE00"))
        assert stream(first, second, STOP).choices[0].text == "😀"

    @pytest.mark.parametrize("said", [r"\\ud83d", r"\\\\ud83d\\ude00", r"\\ud83d😀", r"\"\\"])
    def test_what_only_looks_like_one(self, said: str) -> None:
        """Beside a half, so that the event is mended."""
        event = json.dumps(chunk({"content": "X"}), ensure_ascii=False).replace("X", said + r"\udcaf")
        assert stream(event, STOP).choices[0].text == json.loads(f'"{said}"') + LOST

    def test_an_escaped_backslash_before_a_half(self) -> None:
        event = json.dumps(chunk({"content": "X"})).replace("X", r"\\ud83d\ude00")
        assert stream(event, STOP).choices[0].text == r"\ud83d" + LOST

    def test_of_each_choice_its_own(self) -> None:
        first, second = [chunk({"content": HIGH}, index=index) for index in (0, 1)]
        answer = stream(
            first, second, chunk({"content": LOW}, index=1), chunk({"content": "b"}), STOP, chunk({}, "stop", 1), n=2
        )
        assert [answer.choices[index].text for index in (0, 1)] == [LOST + "b", "😀"]

    def test_choices_that_all_have_one_number(self) -> None:
        pieces = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in (HIGH, "a" + HIGH)]
        after = [{"index": 0, "delta": {"content": LOW}, "finish_reason": "stop"} for _ in range(2)]
        answer = stream({"id": "a", "choices": pieces}, {"id": "a", "choices": after}, n=2)
        assert [answer.choices[index].text for index in (0, 1)] == ["😀", "a😀"]

    def test_in_one_piece(self) -> None:
        assert whole({"content": "cut " + HIGH}, "length").choices[0].text == "cut " + LOST

    def test_a_list_of_pieces(self) -> None:
        assert stream(chunk({"content": [{"type": "text", "text": "a" + HIGH}]}), STOP).choices[0].text == "a" + LOST

    def test_after_pieces_that_are_read_by_what_stands_around_them(self) -> None:
        assert texts(*"abcdef", HIGH, LOW, *"ghij", HIGH, "k") == [*"abcdef", "😀", *"ghij", LOST + "k"]

    @given(
        st.lists(st.sampled_from(["a", "é", "\\", '"', "😀", "🎉", HIGH, LOW]), max_size=60).map("".join),
        st.lists(st.integers(1, 3), min_size=1),
        st.integers(1, 4000),
    )
    def test_wherever_it_is_cut(self, text: str, cuts: list[int], size: int) -> None:
        units = text.encode("utf-16-le", "surrogatepass")
        events: list[JSON] = []
        at = 0
        while at < len(units):
            end = at + 2 * cuts[len(events) % len(cuts)]
            events.append(chunk({"content": units[at:end].decode("utf-16-le", "surrogatepass")}))
            at = end
        said = units.decode("utf-16-le", "replace")
        assert (relayed([*events, STOP], size).choices[0].text or "") == said

    def test_of_a_text_completion(self) -> None:
        decoder = FAMILY.completion_decoder(completion_pb2.CompleteRequest(model="m"), UPSTREAM)
        response = completion_pb2.CompleteResponse()
        for text, finish in (("a" + HIGH, None), (LOW, None), (HIGH, "stop")):
            event = {"id": "a", "choices": [{"index": 0, "text": text, "finish_reason": finish}]}
            decoder.feed(("", json.dumps(event).encode()), response.chunks)
        decoder.feed(("", b"[DONE]"), response.chunks)
        assert [each.text for each in response.chunks if each.text] == ["a", "😀", LOST]


class TestElsewhere:
    @pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
    def test_reasoning(self, name: str) -> None:
        answer = stream(chunk({name: "a" + HIGH}), chunk({name: LOW + HIGH}), chunk({"content": "b"}), STOP)
        assert [block.text for block in answer.choices[0].reasoning] == ["a😀" + LOST]
        assert answer.choices[0].text == "b"

    def test_a_refusal(self) -> None:
        assert stream(chunk({"refusal": HIGH}), chunk({"refusal": LOW}), STOP).choices[0].refusal == "😀"

    def test_arguments_of_calls(self) -> None:
        answer = stream(
            chunk(call(0, "x", "f", '{"a":"' + HIGH)),
            chunk(call(1, "y", "g", '{"b":"' + HIGH)),
            chunk(call(1, arguments=LOW + '"}')),
            chunk(call(0, arguments=LOW + "c" + HIGH)),
            chunk(call(0, arguments='"}')),
            STOP,
        )
        assert calls(answer.choices[0]) == [("x", "f", '{"a":"😀c' + LOST + '"}'), ("y", "g", '{"b":"😀"}')]

    def test_arguments_that_are_cut_for_good(self) -> None:
        answer = stream(chunk(call(0, "x", "f", '{"a":"' + HIGH)), chunk(call(0, "y", "g", '{"b":"' + HIGH)), STOP)
        assert calls(answer.choices[0]) == [("x", "f", '{"a":"' + LOST), ("y", "g", '{"b":"' + LOST)]

    def test_calls_without_an_index(self) -> None:
        answer = stream(chunk(call(None, "x", "f", '{"a":"' + HIGH)), chunk(call(arguments=LOW + '"}')), STOP)
        assert calls(answer.choices[0]) == [("x", "f", '{"a":"' + LOST + LOST + '"}')]

    def test_a_member_of_a_vendors_own(self) -> None:
        answer = stream(chunk({"content": "a", "mood": HIGH}), STOP)
        assert answer.choices[0].delta_extra == {"mood": r'"\ufffd"'}

    def test_an_error(self) -> None:
        with pytest.raises(CallError, match=f"No more {LOST}"):
            stream(chunk({"content": "a"}), {"error": {"message": "No more " + HIGH}})

    @pytest.mark.parametrize("event", [r'{"choices":[{"index":"\ud83d"}]}', r'{"id":"\ud83d"', '{"id":"\\ud83d\xff"}'])
    def test_an_event_that_cannot_be_read_all_the_same(self, event: str) -> None:
        with pytest.raises(CallError) as caught:
            decoder_for().feed(("", event.encode("latin-1")), chat_pb2.ChatResponse().chunks)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


def test_a_half_in_a_call_that_is_no_list() -> None:
    """Which is read, though not joined."""
    piece = r'{"choices":[{"delta":{"tool_calls":{"index":0,"id":"c","function":{"name":"f","arguments":"\ud83d"}}}}]}'
    (found,) = stream(piece, STOP).choices[0].calls.values()
    assert (found.name, found.arguments) == ("f", "\ufffd")

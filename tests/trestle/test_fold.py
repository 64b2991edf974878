"""Chunks folded to one answer: every arm of the contract."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2

Chunk = chat_pb2.ChatChunk


def fold(*chunks: Chunk) -> AnswerFold:
    answer = AnswerFold()
    answer.feed(chunks)
    answer.close()
    return answer


def call(index: int, arguments: str, choice: int = 0, **fields: Any) -> Chunk:
    return Chunk(choice=choice, tool_call=chat_pb2.ToolCallDelta(index=index, arguments=arguments, **fields))


STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=1))
FINISH = Chunk(finish=chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP, upstream_reason="stop"))


def test_texts_of_each_choice_are_joined() -> None:
    answer = fold(STARTED, Chunk(text="He"), Chunk(choice=1, text="By"), Chunk(text="llo"), Chunk(choice=1, text="e"))
    assert {index: choice.text for index, choice in answer.choices.items()} == {0: "Hello", 1: "Bye"}
    assert answer.started == STARTED.started


def test_what_was_not_said_is_none() -> None:
    choice = fold(STARTED, FINISH).choices[0]
    assert (choice.text, choice.refusal, choice.audio, choice.logprobs) == (None,) * 4
    assert (choice.reasoning, choice.calls) == ([], {})
    assert choice.finish == FINISH.finish


def test_the_last_usage_counts() -> None:
    answer = fold(STARTED, Chunk(usage=chat_pb2.Usage(input_tokens=5)), Chunk(usage=chat_pb2.Usage(output_tokens=2)))
    assert answer.usage == chat_pb2.Usage(output_tokens=2)
    assert answer.choices == {}


def test_whole_only_with_a_start_and_a_finish_for_every_choice() -> None:
    assert fold(STARTED, Chunk(text="a"), FINISH).whole
    assert not fold(STARTED, Chunk(text="a")).whole
    assert not fold(STARTED, Chunk(text="a"), Chunk(choice=1, text="b"), FINISH).whole
    assert not fold(FINISH).whole
    assert not fold(STARTED).whole


def test_interleaved_calls_are_joined_by_index() -> None:
    function = chat_pb2.TOOL_KIND_FUNCTION
    answer = fold(
        STARTED,
        call(1, "", id="b", name="g", kind=function),
        call(0, '{"x"', id="a", name="f", kind=function),
        call(1, "{}"),
        call(0, ":1}", signature="seal"),
        call(0, "[]", choice=2, id="c", name="h"),
    )
    calls = answer.choices[0].calls
    assert {i: (c.id, c.name, c.arguments, c.signature) for i, c in calls.items()} == {
        0: ("a", "f", '{"x":1}', "seal"),
        1: ("b", "g", "{}", ""),
    }
    assert calls[0].kind == function
    assert answer.choices[2].calls[0].arguments == "[]"


def test_blocks_of_thinking_keep_their_seals_and_places() -> None:
    answer = fold(
        STARTED,
        Chunk(reasoning="I "),
        Chunk(reasoning="think"),
        Chunk(reasoning_end=chat_pb2.ReasoningEnd(signature="s")),
        Chunk(text="So."),
        call(0, "{}", id="a", name="f"),
        Chunk(reasoning="More"),
        Chunk(reasoning_end=chat_pb2.ReasoningEnd()),
        Chunk(reasoning_end=chat_pb2.ReasoningEnd(redacted=b"\x00")),
    )
    blocks = answer.choices[0].reasoning
    assert [(b.text, b.signature, b.redacted, b.position) for b in blocks] == [
        ("I think", "s", b"", 0),
        ("More", "", b"", 2),
        ("", "", b"\x00", 2),
    ]


def test_refusal_and_audio_are_joined() -> None:
    answer = fold(
        STARTED,
        Chunk(refusal="I can"),
        Chunk(refusal="not."),
        Chunk(audio=chat_pb2.AudioDelta(id="a", data="AA", transcript="He")),
        Chunk(audio=chat_pb2.AudioDelta(data="BB", transcript="llo", expires_at=9)),
    )
    choice = answer.choices[0]
    assert choice.refusal == "I cannot."
    assert choice.audio == chat_pb2.AudioDelta(id="a", data="AABB", transcript="Hello", expires_at=9)


def test_logprobs_are_concatenated_wherever_they_ride() -> None:
    def token(text: str) -> chat_pb2.Logprobs:
        return chat_pb2.Logprobs(has_content=True, content=[chat_pb2.TokenLogprob(token=text, logprob=-1)])

    answer = fold(STARTED, Chunk(text="a", logprobs=token("a")), Chunk(logprobs=token("")), Chunk(text="b"))
    choice = answer.choices[0]
    assert choice.logprobs is not None
    assert [each.token for each in choice.logprobs.content] == ["a", ""]
    assert choice.text == "ab"


def own(logprobs: str, **fields: Any) -> Chunk:
    return Chunk(choice_extra_json=b'{"x":1,"logprobs":%s}' % logprobs.encode(), **fields)


def test_arrays_of_logprobs_in_a_vendors_form_go_on() -> None:
    pieces = ('{"content":[{"token":"a","logprob":-1.0,"id":1}],"n":1}', '{"content":[ ],"refusal":null,"n":null}')
    answer = fold(STARTED, own(pieces[0], text="a"), own(pieces[1], text="b"), own(pieces[0], text="c"), FINISH)
    item = '{"token":"a","logprob":-1.0,"id":1}'
    expected = {"x": "1", "logprobs": f'{{"content":[{item},{item}],"n":1,"refusal":null}}'}
    assert answer.choices[0].extra == expected
    answer.close()
    assert answer.choices[0].extra == expected
    assert fold(STARTED, own(pieces[0], text="a")).choices[0].extra["logprobs"] == pieces[0], "one is as it came"


@pytest.mark.parametrize("last", ["null", "7", "[1]"])
def test_logprobs_of_which_nothing_can_be_joined(last: str) -> None:
    first = '{"tokens":["a"]}'
    assert fold(STARTED, own(first), own(last)).choices[0].extra["logprobs"] == (first if last == "null" else last)


def test_logprobs_in_both_forms_are_in_the_vendors_and_in_their_order() -> None:
    top = chat_pb2.TokenLogprob(token="z", logprob=-2)
    typed = chat_pb2.Logprobs(content=[chat_pb2.TokenLogprob(token="é", logprob=-0.5, token_bytes=b"\xc3", top=[top])])
    vendors = own('{"content":[{"token":"b","logprob":-1,"id":1}]}', text="b")
    empty = chat_pb2.Logprobs(has_content=True, has_refusal=True)
    answer = fold(STARTED, Chunk(text="é", logprobs=typed), vendors, Chunk(text="c", logprobs=empty), FINISH)
    choice = answer.choices[0]
    assert choice.logprobs is None
    assert json.loads(choice.extra["logprobs"]) == {
        "content": [
            {
                "token": "é",
                "logprob": -0.5,
                "bytes": [0xC3],
                "top_logprobs": [{"token": "z", "logprob": -2, "bytes": None}],
            },
            {"token": "b", "logprob": -1, "id": 1},
        ],
        "refusal": [],
    }


def test_extras_stay_at_their_level() -> None:
    answer = fold(
        STARTED,
        Chunk(text="a", answer_extra_json=b'{"a":1.0}', choice_extra_json=b'{"c":1}', delta_extra_json=b'{"d":[]}'),
        Chunk(choice=1, choice_extra_json=b'{"c":2}'),
        call(0, "", id="x", name="f", extra_json=b'{"e":1}', function_extra_json=b'{"g":2}'),
        call(0, "", extra_json=b'{"e":2}'),
    )
    assert answer.extra == {"a": "1.0"}
    assert (answer.choices[0].extra, answer.choices[1].extra) == ({"c": "1"}, {"c": "2"})
    assert answer.choices[0].delta_extra == {"d": "[]"}
    folded = answer.choices[0].calls[0]
    assert (folded.extra, folded.function_extra) == ({"e": "2"}, {"g": "2"})


@given(text=st.text(), cuts=st.lists(st.integers(0, 50), max_size=5))
def test_pieces_fold_to_the_whole(text: str, cuts: list[int]) -> None:
    places = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    whole = fold(STARTED, Chunk(text=text), call(0, text, id="a", name="f"), FINISH)
    cut = fold(STARTED, *(Chunk(text=p) for p in pieces), *(call(0, p, id="a", name="f") for p in pieces), FINISH)
    assert whole.choices == cut.choices

"""Whole answers: what they offer, and the turn that goes back."""

from __future__ import annotations

import json
from typing import assert_type

import pytest

from trestle.client import ChatAnswer, Embeddings, Message, Reason, TextAnswer, Truncated, UpstreamFailed, Usage
from trestle.client.answers import chat_answer, text_answer
from trestle.fold import AnswerFold, TextFold
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2

Chunk = chat_pb2.ChatChunk
STARTED = chat_pb2.Started(id="a", model="m", created=1, service_tier="flex", system_fingerprint="fp")
STOP = chat_pb2.Finish(reason=chat_pb2.FINISH_REASON_STOP)


def whole(*chunks: Chunk) -> ChatAnswer:
    fold = AnswerFold()
    fold.feed([Chunk(started=STARTED), *chunks, Chunk(finish=STOP)])
    return chat_answer(fold, ("top_p",))


def test_what_an_answer_says_of_itself() -> None:
    answer = whole(Chunk(text="Hel"), Chunk(text="lo"), Chunk(usage=Usage(input_tokens=1)))
    assert (answer.text, answer.finish, answer.calls) == ("Hello", chat_pb2.FINISH_REASON_STOP, [])
    assert (answer.service_tier, answer.system_fingerprint) == ("flex", "fp")
    assert answer.usage == Usage(input_tokens=1)
    assert list(answer.ignored_params) == ["top_p"]
    assert_type(answer.text, str)


def test_choices_stand_in_their_order() -> None:
    answer = whole(Chunk(choice=1, text="b"), Chunk(choice=1, finish=STOP), Chunk(text="a"))
    assert [choice.text for choice in answer.choices] == ["a", "b"]
    assert answer.message(1).text == "b"


def test_one_that_is_not_whole_is_none() -> None:
    fold = AnswerFold()
    fold.feed([Chunk(started=STARTED), Chunk(text="Hel"), Chunk(usage=Usage(input_tokens=1))])
    with pytest.raises(Truncated) as caught:
        chat_answer(fold, ())
    assert caught.value.usage == Usage(input_tokens=1)
    with pytest.raises(Truncated):
        text_answer(TextFold(), ())


def test_the_turn_that_goes_back_keeps_everything() -> None:
    call = chat_pb2.ToolCallDelta(
        index=0, id="call_1", name="f", arguments="{", kind=chat_pb2.TOOL_KIND_FUNCTION, extra_json=b'{"v":1.0}'
    )
    more = chat_pb2.ToolCallDelta(index=0, arguments="}", signature="s2", sealed_by="gemini")
    answer = whole(
        Chunk(reasoning="Hm"),
        Chunk(reasoning_end=chat_pb2.ReasoningEnd(signature="s1", redacted=b"r", sealed_by="anthropic")),
        Chunk(text="Hello", delta_extra_json=b'{"annotations":[{"a":1.0}]}'),
        Chunk(tool_call=call),
        Chunk(tool_call=more),
        Chunk(audio=chat_pb2.AudioDelta(id="audio_1", data="AAAA")),
    )
    assert answer.message() == Message(
        role=chat_pb2.ROLE_ASSISTANT,
        text="Hello",
        reasoning=[chat_pb2.ReasoningBlock(text="Hm", signature="s1", redacted=b"r", sealed_by="anthropic")],
        tool_calls=[
            chat_pb2.ToolCall(
                id="call_1", name="f", arguments="{}", kind=chat_pb2.TOOL_KIND_FUNCTION, signature="s2",
                sealed_by="gemini", extra_json=b'{"v":1.0}',
            )
        ],
        audio_json=b'{"id": "audio_1"}',
        extra_json=b'{"annotations":[{"a":1.0}]}',
    )  # fmt: skip


def test_silence_is_no_text() -> None:
    """Null and the empty text are two things in a conversation."""
    message = whole(Chunk(refusal="No.")).message()
    assert (message.HasField("text"), message.refusal) == (False, "No.")


def test_a_text_completion() -> None:
    fold = TextFold()
    Piece = completion_pb2.CompletionChunk
    fold.feed([Piece(started=STARTED), Piece(text="a", logprobs_json=b'{"tokens":["a"],"top_logprobs":null}')])
    fold.feed([Piece(text="b", logprobs_json=b'{"tokens":["b"],"top_logprobs":null}', choice_extra_json=b'{"x":1}')])
    fold.feed([Piece(finish=STOP, answer_extra_json=b'{"y":2}'), Piece(usage=Usage(output_tokens=2))])
    answer = text_answer(fold, ())
    assert_type(answer, TextAnswer)
    (choice,) = answer.choices
    assert (answer.text, choice.logprobs) == ("ab", {"tokens": '["a","b"]', "top_logprobs": "null"})
    assert (choice.extra, answer.extra, answer.usage) == ({"x": "1"}, {"y": "2"}, Usage(output_tokens=2))


def test_vectors_of_either_form() -> None:
    packed = embedding_pb2.Embedding(float32_le=b"\x00\x00\x00\x3f\x00\x00\x80\xbf")
    written = embedding_pb2.Embedding(values_json=json.dumps([0.1, 2]).encode())
    response = embedding_pb2.EmbedResponse(model="m", embeddings=[packed, written])
    assert Embeddings(response).vectors == [[0.5, -1.0], [0.1, 2]]


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (embedding_pb2.Embedding(other_json=b'"gP0ABQ=="'), "other_json"),
        (embedding_pb2.Embedding(extra_json=b'{"embeddings":[[1.0]]}'), "extra_json"),
    ],
)
def test_vectors_in_a_form_that_only_the_upstream_knows_are_not_made_up(
    found: embedding_pb2.Embedding, where: str
) -> None:
    response = embedding_pb2.EmbedResponse(embeddings=[found])
    with pytest.raises(UpstreamFailed, match=where) as raised:
        _ = Embeddings(response).vectors
    assert raised.value.reason is Reason.UPSTREAM_PROTOCOL

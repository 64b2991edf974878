"""Legacy text completions: request, stream, and the answer in one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai.text import TextFold, TextStreamEncoder, decode_text
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, completion_pb2

Chunk = completion_pb2.CompletionChunk
STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=7, system_fingerprint="fp"))
HEAD = {"id": "a", "object": "text_completion", "created": 7, "model": "m", "system_fingerprint": "fp"}
USAGE = Chunk(usage=chat_pb2.Usage(input_tokens=1, output_tokens=2))


def request(**members: Any) -> completion_pb2.CompleteRequest:
    return decode_text(json.dumps({"model": "m", **members}).encode()).request


def finish(reason: Any = chat_pb2.FINISH_REASON_STOP, choice: int = 0) -> Chunk:
    return Chunk(choice=choice, finish=chat_pb2.Finish(reason=reason))


def choice(text: str, index: int = 0, **members: Any) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": None, **members}


def events(data: bytes) -> list[Any]:
    texts = data.decode().split("\n\n")
    assert texts.pop() == ""
    return [text[6:] if text == "data: [DONE]" else json.loads(text.removeprefix("data: ")) for text in texts]


def folded(*chunks: Chunk) -> TextFold:
    fold = TextFold()
    fold.feed(chunks)
    return fold


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens", "single"),
    [
        (None, [], [], False),
        ("a", ["a"], [], True),
        (["a"], ["a"], [], False),
        (["a", ""], ["a", ""], [], False),
        ([1, 2], [], [[1, 2]], True),
        ([[1, 2], [3]], [], [[1, 2], [3]], False),
    ],
)
def test_a_prompt_keeps_its_form(prompt: Any, texts: list[str], tokens: list[list[int]], single: bool) -> None:
    asked = request(prompt=prompt)
    assert [each.text for each in asked.prompts if each.HasField("text")] == texts
    assert [list(each.tokens.ids) for each in asked.prompts if each.HasField("tokens")] == tokens
    assert asked.single is single


@pytest.mark.parametrize(
    ("prompt", "param", "code"),
    [([], "prompt", "invalid_value"), ([1, "a"], "prompt", "invalid_type"), ([[1], []], "prompt[1]", "invalid_value")],
)
def test_a_prompt_that_is_none(prompt: Any, param: str, code: str) -> None:
    with pytest.raises(CallError) as raised:
        request(prompt=prompt)
    assert (raised.value.reason, raised.value.param, raised.value.code) == (Reason.INVALID_REQUEST, param, code)


def test_what_is_set_and_what_is_absent() -> None:
    asked = decode_text(
        b'{"model":"m","prompt":"a","suffix":"","echo":false,"best_of":0,"logprobs":5,"temperature":0,"stop":["x","y"],'
        b'"max_tokens":0,"seed":-1,"n":2,"logit_bias":{"50256":-100.0},"user":"u","vendor":1.0,"top_p":null,'
        b'"stream":true,"stream_options":{"include_usage":true,"more":[ ]}}'
    )
    expected = completion_pb2.CompleteRequest(
        single=True,
        suffix="",
        echo=False,
        best_of=0,
        logprobs=5,
        stream=True,
        stream_options_json=b'{"more":[ ]}',
        user="u",
        extra_json=b'{"vendor":1.0}',
        sampling=chat_pb2.Sampling(
            temperature=0, max_tokens=0, seed=-1, n=2, stop=["x", "y"], logit_bias_json=b'{"50256":-100.0}'
        ),
    )
    expected.prompts.add(text="a")
    assert asked.request == expected
    assert (asked.model, asked.stream, asked.include_usage) == ("m", True, True)
    assert request(stop="x").sampling.stop_is_string
    assert request() == completion_pb2.CompleteRequest(sampling=chat_pb2.Sampling())


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream(include_usage: bool) -> None:
    encoder = TextStreamEncoder(include_usage)
    assert encoder.feed([STARTED, USAGE]) == b"", "nothing is said yet"
    assert encoder.finished == set()
    named = {"usage": None} if include_usage else {}
    data = encoder.feed([Chunk(text="Hé"), Chunk(choice=1, text="b", logprobs_json=b'{"tokens":[1.0]}')])
    assert events(data) == [
        {**HEAD, "choices": [choice("Hé")], **named},
        {**HEAD, "choices": [choice("b", 1, logprobs={"tokens": [1.0]})], **named},
    ]
    assert b'{"tokens":[1.0]}' in data, "byte for byte"
    (ended,) = events(encoder.feed([finish(chat_pb2.FINISH_REASON_LENGTH)]))
    assert ended == {**HEAD, "choices": [choice("", finish_reason="length")], **named}
    assert encoder.finished == {0}, "the other choice has none"
    encoder.feed([finish(choice=1)])
    assert (encoder.chars, encoder.finish, encoder.model, encoder.finished) == (3, "length", "m", {0, 1})
    assert encoder.whole
    last = events(encoder.close())
    assert last.pop() == "[DONE]"
    if include_usage:
        (told,) = last
        assert {name: told[name] for name in HEAD} == HEAD
        assert (told["choices"], told["usage"]["total_tokens"]) == ([], 3)
    else:
        assert last == []


def test_a_usage_that_nobody_told_is_null() -> None:
    encoder = TextStreamEncoder(True)
    encoder.feed([STARTED, finish()])
    assert events(encoder.close())[0]["usage"] is None


def test_a_stream_that_breaks_has_an_error_and_no_done() -> None:
    (told,) = events(TextStreamEncoder(True).fail(CallError(Reason.UPSTREAM_TRUNCATED, "It broke.")))
    assert told["error"]["code"] == "upstream_truncated"


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        (chat_pb2.FINISH_REASON_STOP, "stop"),
        (chat_pb2.FINISH_REASON_LENGTH, "length"),
        (chat_pb2.FINISH_REASON_CONTENT_FILTER, "content_filter"),
        (chat_pb2.FINISH_REASON_TOOL_CALLS, "stop"),
        (chat_pb2.FINISH_REASON_FUNCTION_CALL, "stop"),
        (chat_pb2.FINISH_REASON_OTHER, "stop"),
    ],
)
def test_this_endpoint_knows_three_finishes(reason: Any, word: str) -> None:
    (told,) = events(TextStreamEncoder(False).feed([STARTED, finish(reason)])[0:])
    assert told["choices"][0]["finish_reason"] == word
    whole = folded(STARTED, Chunk(text="a"), finish(reason))
    assert whole.finish == word
    assert json.loads(whole.encode())["choices"][0]["finish_reason"] == word


def test_extras_stand_at_their_level_and_never_in_place_of_ours() -> None:
    chunk = Chunk(text="a", choice_extra_json=b'{"text":"forged","hate":1.0}', answer_extra_json=b'{"id":"x","more":1}')
    (told,) = events(TextStreamEncoder(False).feed([STARTED, chunk]))
    assert told == {**HEAD, "choices": [choice("a", hate=1.0)], "more": 1}
    whole = json.loads(folded(STARTED, chunk, finish()).encode())
    assert whole == {**HEAD, "choices": [choice("a", hate=1.0, finish_reason="stop")], "more": 1}


def test_an_answer_in_one_piece() -> None:
    fold = TextFold()
    assert (fold.model, fold.finish, fold.chars) == ("", "", 0)
    fold.feed([STARTED, Chunk(choice=1, text="b"), Chunk(text="Hel"), Chunk(text="lo"), USAGE])
    assert (fold.model, fold.finish, fold.chars) == ("m", "", 6)
    fold.feed([finish(choice=1), finish(chat_pb2.FINISH_REASON_LENGTH)])
    assert (fold.finish, fold.whole) == ("length", True)
    told = json.loads(fold.encode())
    assert told.pop("usage")["total_tokens"] == 3
    assert told == {
        **HEAD,
        "choices": [choice("Hello", finish_reason="length"), choice("b", 1, finish_reason="stop")],
    }


def test_logprobs_of_an_answer_in_one_piece() -> None:
    told = folded(STARTED, Chunk(text="a", logprobs_json=b'{"tokens":["a"],"top":null}'), finish())
    assert json.loads(told.encode())["choices"][0]["logprobs"] == {"tokens": ["a"], "top": None}


def test_a_fingerprint_that_nobody_told_is_absent() -> None:
    told = json.loads(folded(Chunk(started=chat_pb2.Started(id="a", model="m")), Chunk(text="a"), finish()).encode())
    assert "system_fingerprint" not in told
    assert "usage" not in told


@pytest.mark.parametrize(
    ("chunks", "whole"),
    [
        ([], False),
        ([STARTED], False),
        ([STARTED, Chunk(text="a")], False),
        ([finish()], False),
        ([STARTED, finish()], True),
        ([STARTED, Chunk(text="a"), Chunk(choice=1, text="b"), finish()], False),
        ([STARTED, Chunk(choice=1, text="b"), finish(), finish(choice=1)], True),
    ],
)
def test_whole_is_when_every_choice_has_finished(chunks: list[Chunk], whole: bool) -> None:
    encoder = TextStreamEncoder(False)
    encoder.feed(chunks)
    assert (encoder.whole, folded(*chunks).whole) == (whole, whole)

"""Chunks to an answer in one piece."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.openai.completion import ChatFold
from trestle.v1 import chat_pb2

Chunk = chat_pb2.ChatChunk
STARTED = Chunk(started=chat_pb2.Started(id="a", model="m", created=7))


def finish(reason: Any = chat_pb2.FINISH_REASON_STOP, choice: int = 0) -> Chunk:
    return Chunk(choice=choice, finish=chat_pb2.Finish(reason=reason))


def encode(*chunks: Chunk) -> Any:
    fold = ChatFold()
    fold.feed(chunks)
    assert fold.whole
    return json.loads(fold.encode())


def message(*chunks: Chunk) -> Any:
    return encode(STARTED, *chunks, finish())["choices"][0]["message"]


def call(**fields: Any) -> Chunk:
    return Chunk(tool_call=chat_pb2.ToolCallDelta(**fields))


def test_the_smallest_one() -> None:
    assert encode(STARTED, Chunk(text="Hel"), Chunk(text="lo"), finish()) == {
        "id": "a",
        "object": "chat.completion",
        "created": 7,
        "model": "m",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
    }


def test_choices_stand_in_order() -> None:
    answer = encode(STARTED, Chunk(choice=1, text="b"), Chunk(text="a"), finish(choice=1), finish())
    assert [(choice["index"], choice["message"]["content"]) for choice in answer["choices"]] == [(0, "a"), (1, "b")]


def test_an_answer_that_says_nothing_is_an_empty_text() -> None:
    assert message() == {"role": "assistant", "content": "", "refusal": None}


def test_a_refusal_has_no_text() -> None:
    assert message(Chunk(refusal="No.")) == {"role": "assistant", "content": None, "refusal": "No."}


def test_calls() -> None:
    function, custom = chat_pb2.TOOL_KIND_FUNCTION, chat_pb2.TOOL_KIND_CUSTOM
    told = message(
        call(index=1, id="d", name="g", kind=custom, arguments="x"),
        call(index=0, id="c", name="f", kind=function, function_extra_json=b'{"strict":true}'),
        call(index=0, arguments="{}", extra_json=b'{"extra_content":{"id":1.0}}'),
    )
    assert told["content"] is None
    assert told["tool_calls"] == [
        {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": "{}", "strict": True},
            "extra_content": {"id": 1.0},
        },
        {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
    ]


def test_the_legacy_call() -> None:
    legacy = chat_pb2.TOOL_KIND_LEGACY_FUNCTION
    told = message(call(name="f", kind=legacy), call(arguments="{}", kind=legacy))
    assert told["function_call"] == {"name": "f", "arguments": "{}"}
    assert "tool_calls" not in told


def test_thinking_and_audio() -> None:
    audio = chat_pb2.AudioDelta(id="a", data="AA", transcript="t", expires_at=9)
    told = message(Chunk(reasoning="H"), Chunk(reasoning="m"), Chunk(audio=audio))
    assert told["reasoning_content"] == "Hm"
    assert told["audio"] == {"id": "a", "data": "AA", "transcript": "t", "expires_at": 9}
    assert told["content"] is None


def test_thoughts_and_calls_that_are_sealed() -> None:
    sealed = chat_pb2.ReasoningEnd(signature="s", sealed_by="anthropic")
    told = message(
        Chunk(reasoning="H"),
        Chunk(reasoning="m"),
        Chunk(reasoning_end=sealed),
        Chunk(text="a"),
        Chunk(reasoning_end=chat_pb2.ReasoningEnd(redacted=b"\x01\x02")),
        call(id="c", name="f", kind=chat_pb2.TOOL_KIND_FUNCTION, signature="t", sealed_by="gemini"),
    )
    assert told["reasoning_content"] == "Hm"
    assert told["reasoning_blocks"] == [
        {"index": 0, "text": "Hm", "position": 0, "signature": "s", "by": "anthropic"},
        {"index": 1, "text": "", "position": 1, "redacted": "AQI="},
    ]
    assert told["tool_calls"][0]["seal"] == {"by": "gemini", "signature": "t"}


def test_thoughts_that_are_hidden_have_no_text() -> None:
    told = message(Chunk(reasoning_end=chat_pb2.ReasoningEnd(redacted=b"\x01")), Chunk(text="a"))
    assert "reasoning_content" not in told
    assert told["reasoning_blocks"] == [{"index": 0, "text": "", "position": 0, "redacted": "AQ=="}]


def test_what_a_request_is_charged_and_logged_by() -> None:
    """The characters of all that was generated, the first choice's finish, the model that answers."""
    fold = ChatFold()
    assert (fold.chars, fold.model, fold.finish) == (0, "", "")
    kind = chat_pb2.TOOL_KIND_FUNCTION
    fold.feed([STARTED, Chunk(text="ab"), Chunk(choice=1, refusal="c"), Chunk(reasoning="def")])
    fold.feed([call(id="id", name="gh", arguments="{}", kind=kind), finish(chat_pb2.FINISH_REASON_STOP, choice=1)])
    assert (fold.chars, fold.model, fold.finish) == (10, "m", "")
    fold.feed([finish(chat_pb2.FINISH_REASON_LENGTH)])
    fold.close()
    assert (fold.chars, fold.finish) == (10, "length")


def test_logprobs_of_an_answer_in_one_piece() -> None:
    tokens = [chat_pb2.TokenLogprob(token=text, logprob=-1.0) for text in "ab"]
    chunks = [Chunk(text=each.token, logprobs=chat_pb2.Logprobs(content=[each])) for each in tokens]
    (choice,) = encode(STARTED, *chunks, finish())["choices"]
    assert [each["token"] for each in choice["logprobs"]["content"]] == ["a", "b"]
    assert choice["logprobs"]["refusal"] is None


def test_extras_stand_at_their_level_and_never_in_place_of_ours() -> None:
    chunk = Chunk(
        text="a",
        answer_extra_json=b'{"id":"forged","object":"x","citations":[1]}',
        choice_extra_json=b'{"index":9,"finish_reason":"x","hate":{}}',
        delta_extra_json=b'{"content":"forged","thought":1}',
    )
    answer = encode(STARTED, chunk, finish())
    assert (answer["id"], answer["object"], answer["citations"]) == ("a", "chat.completion", [1])
    (choice,) = answer["choices"]
    assert (choice["index"], choice["finish_reason"], choice["hate"]) == (0, "stop", {})
    assert (choice["message"]["content"], choice["message"]["thought"]) == ("a", 1)


def test_usage_with_its_parts() -> None:
    usage = chat_pb2.Usage(
        input_tokens=10,
        output_tokens=5,
        cache_read_tokens=4,
        cache_write_tokens=1,
        reasoning_tokens=3,
        extra_json=b'{"cost":0.10}',
        input_details_extra_json=b'{"image_tokens":2}',
    )
    told = encode(STARTED, Chunk(text="a"), finish(), Chunk(usage=usage))["usage"]
    assert told == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0, "cache_write_tokens": 1, "image_tokens": 2},
        "completion_tokens_details": {
            "reasoning_tokens": 3,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "cost": 0.1,
    }


@pytest.mark.parametrize(
    ("usage", "total", "estimated"),
    [
        (chat_pb2.Usage(input_tokens=1, output_tokens=2, total_tokens=9), 9, False),
        (chat_pb2.Usage(input_tokens=1, output_tokens=2, estimated=True), 3, True),
    ],
)
def test_totals_and_estimates(usage: chat_pb2.Usage, total: int, estimated: bool) -> None:
    told = encode(STARTED, Chunk(text="a"), finish(), Chunk(usage=usage))["usage"]
    assert (told["total_tokens"], told.get("estimated", False)) == (total, estimated)


def test_text_of_any_kind_survives() -> None:
    text = 'a"\\\n\u0000\u2028🎉</script>'
    assert message(Chunk(text=text))["content"] == text


def test_logprobs_in_a_vendors_own_form() -> None:
    extra = b'{"logprobs":{"tokens":["a"],"token_logprobs":[-0.10]}}'
    (choice,) = encode(STARTED, Chunk(text="a", choice_extra_json=extra), finish())["choices"]
    assert choice["logprobs"] == {"tokens": ["a"], "token_logprobs": [-0.1]}

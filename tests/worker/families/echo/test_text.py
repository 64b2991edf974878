"""Legacy text completions: there and back through OpenAI's own form."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.echo import FAMILY, NOW, Object

from gateway.openai.text import TextFold, TextStreamEncoder, decode_text
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, completion_pb2
from worker.family import Wait


def asked(prompt: Any = "one two three", model: str = "echo", **members: Any) -> completion_pb2.CompleteRequest:
    """The request that a client's JSON becomes."""
    found = decode_text(json.dumps({"model": model, "prompt": prompt, **members}).encode())
    found.request.model = found.model
    return found.request


def completed(request: completion_pb2.CompleteRequest) -> Object:
    """The answer as a client gets it in one piece."""
    fold = TextFold()
    for step in FAMILY.complete(request):
        if not isinstance(step, Wait):
            fold.feed(step.chunks)
    assert fold.whole
    found: Object = json.loads(fold.encode())
    return found


def texts(request: completion_pb2.CompleteRequest) -> list[tuple[str, str]]:
    return [(choice["text"], choice["finish_reason"]) for choice in completed(request)["choices"]]


@pytest.mark.parametrize("stream", [True, False])
def test_a_prompt_is_said_again(stream: bool) -> None:
    found = completed(asked(stream=stream))
    assert (found["model"], found["system_fingerprint"], found["created"]) == ("echo", "trestle-echo", NOW)
    assert found["id"].startswith("cmpl-")
    assert found["choices"] == [{"text": "one two three", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert found["usage"]["prompt_tokens"] == 3
    assert found["usage"]["completion_tokens"] == 3


def test_streamed_or_not_it_is_the_same() -> None:
    members: Object = {"n": 2, "echo": True, "logprobs": 2, "max_tokens": 5}
    assert completed(asked(stream=True, **members)) == completed(asked(stream=False, **members))


def test_several_prompts_and_choices() -> None:
    request = asked(["one", "two"], n=2, stream=True)
    assert texts(request) == [("one", "stop"), ("one (2)", "stop"), ("two", "stop"), ("two (2)", "stop")]


def test_token_ids_are_said_as_numbers() -> None:
    assert texts(asked([[1, 2], [3]])) == [("1 2", "stop"), ("3", "stop")]


def test_without_a_prompt() -> None:
    assert texts(completion_pb2.CompleteRequest(model="echo")) == [("", "stop")]


def test_repeated_before_the_answer() -> None:
    found = completed(asked(echo=True, max_tokens=1))
    assert found["choices"][0]["text"] == "one two threeone"
    assert found["usage"]["completion_tokens"] == 1


def test_limits_and_stops() -> None:
    assert texts(asked(max_tokens=2)) == [("one two", "length")]
    assert texts(asked(stop=[" three", "x"])) == [("one two", "stop")]
    assert texts(asked(model="echo?tokens=5")) == [("one two three one two", "stop")]


@pytest.mark.parametrize("stream", [True, False])
def test_logprobs(stream: bool) -> None:
    (choice,) = completed(asked("one two", "echo?chunk=2", logprobs=2, echo=True, stream=stream))["choices"]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["one", " two", "one", " two"]
    assert logprobs["text_offset"] == [0, 3, 7, 10]
    assert [max(top, key=top.__getitem__) for top in logprobs["top_logprobs"]] == logprobs["tokens"]
    assert [len(top) for top in logprobs["top_logprobs"]] == [2] * 4
    assert all(-1 < each < 0 for each in logprobs["token_logprobs"])


def test_logprobs_without_others() -> None:
    assert completed(asked("one", logprobs=0))["choices"][0]["logprobs"]["top_logprobs"] is None


def test_as_events() -> None:
    encoder = TextStreamEncoder(include_usage=True)
    events = b""
    for step in FAMILY.complete(asked("one two", "echo?delay_ms=20", stream=True)):
        events += b"(wait)" if isinstance(step, Wait) else encoder.feed(step.chunks)
    assert encoder.whole
    assert events.count(b"data: ") == 3
    assert events.count(b"(wait)") == 1


def test_a_best_of_of_zero_is_none() -> None:
    """OpenAI's schema lets it be."""
    assert len(texts(asked(n=2, best_of=0))) == 2


def test_a_fault() -> None:
    before: list[Any] = []
    with pytest.raises(CallError) as caught:
        before.extend(FAMILY.complete(asked(model="echo?fault=cut&after=1", stream=True)))
    assert [chunk.text for step in before for chunk in step.chunks] == ["", "one"]
    assert caught.value.reason is Reason.UPSTREAM_TRUNCATED
    assert caught.value.usage == chat_pb2.Usage(input_tokens=3, output_tokens=1)


@pytest.mark.parametrize(
    ("request_", "reason", "param"),
    [
        (asked(model="other"), Reason.MODEL_NOT_FOUND, "model"),
        (asked(model="echo?refusal=1"), Reason.INVALID_REQUEST, "model"),
        (asked(model="echo?reasoning=4"), Reason.INVALID_REQUEST, "model"),
        (asked(n=3, best_of=2), Reason.INVALID_REQUEST, "best_of"),
        (
            completion_pb2.CompleteRequest(model="echo", prompts=[completion_pb2.Prompt(other_json=b"{}")]),
            Reason.UNSUPPORTED,
            "prompt[0]",
        ),
    ],
)
def test_what_cannot_be(request_: completion_pb2.CompleteRequest, reason: Reason, param: str) -> None:
    with pytest.raises(CallError) as caught:
        list(FAMILY.complete(request_))
    assert (caught.value.reason, caught.value.param) == (reason, param)

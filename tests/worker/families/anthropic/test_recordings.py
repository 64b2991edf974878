"""What Anthropic really sent and was sent: answers through the decoder, however cut, and the recorded clients' requests
as our encoder would make them of the same wishes in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from support import recordings
from support.anthropic import UPSTREAM, assert_valid, chat, decode, encoded, fold, openai_request
from support.recordings import Recording

from trestle.errors import CallError, Reason
from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2
from worker.families.anthropic import FAMILY
from worker.families.anthropic.decode import FINISH

Object = dict[str, Any]


def answered(recording: Recording) -> bool:
    return recording.status == 200


def plain(request: Object) -> Object:
    """A request without the liberties that both sides may take."""
    found = {name: value for name, value in request.items() if (name, value) != ("stream", False)}
    found["messages"] = [
        {"role": turn["role"], "content": plain_content(turn["content"])} for turn in found["messages"]
    ]
    if "system" in found:
        found["system"] = plain_content(found["system"])
    wanted = found.pop("output_format", None)  # what is now output_config.format
    if wanted is not None:
        found["output_config"] = {"format": wanted}
    found.pop("betas", None)
    return found


def plain_content(content: Any) -> list[Object]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [
        {
            name: plain_content(value) if name == "content" else value
            for name, value in block.items()
            if (name, value) != ("is_error", False)
        }
        for block in content
    ]


def request_of(recording: Recording) -> chat_pb2.ChatRequest:
    return chat(**openai_request(recording.request))


def answer_of(recording: Recording, pieces: Iterable[bytes] | None = None) -> AnswerFold:
    return fold(chunks_of(recording, pieces))


def chunks_of(recording: Recording, pieces: Iterable[bytes] | None = None) -> list[chat_pb2.ChatChunk]:
    chunks = decode(pieces or [recording.body], request_of(recording))
    for chunk in chunks:
        if chunk.HasField("started"):
            chunk.started.created = 0  # by the clock
    return chunks


@pytest.mark.parametrize("recording", recordings.params("messages", answered))
class TestAnswers:
    def test_says_what_was_said(self, recording: Recording) -> None:
        answer = answer_of(recording)
        assert answer.started is not None
        assert (answer.started.id, answer.started.model) == (recording.expect["id"], recording.expect["model"])
        (expected,) = recording.expect["choices"]
        choice = answer.choices[0]
        assert (choice.text or "") == expected["text"]
        assert "".join(block.text for block in choice.reasoning) == expected["reasoning"]
        assert choice.refusal == expected["refusal"]
        assert [(call.id, call.name, json.loads(call.arguments)) for call in choice.calls.values()] == [
            (call["id"], call["name"], json.loads(call["arguments"])) for call in expected["tool_calls"]
        ]
        assert choice.finish is not None
        assert choice.finish.upstream_reason == expected["finish_reason"]
        assert choice.finish.reason == FINISH[expected["finish_reason"]]

    def test_counts_what_was_counted(self, recording: Recording) -> None:
        usage, expect = answer_of(recording).usage, recording.expect
        assert usage is not None
        counted = {**expect.get("usage_first", {}), **expect["usage"]}
        read, written = counted.get("cache_read_input_tokens", 0), counted.get("cache_creation_input_tokens", 0)
        assert usage.input_tokens == counted["input_tokens"] + read + written
        assert usage.output_tokens == counted["output_tokens"]
        assert (usage.cache_read_tokens, usage.cache_write_tokens) == (read, written)
        assert not usage.estimated

    def test_keeps_its_seals(self, recording: Recording) -> None:
        blocks = answer_of(recording).choices[0].reasoning
        assert all(block.ended and block.signature for block in blocks)
        assert len(blocks) == recording.expect.get("thinking_signatures", 0)

    def test_keeps_the_blocks_without_a_word(self, recording: Recording) -> None:
        kept = json.loads(answer_of(recording).choices[0].delta_extra.get("content_blocks", "[]"))
        places = [block for block in kept if block["type"] == "text" and "text" not in block]
        assert [block["type"] for block in kept if block not in places] == recording.expect.get("other_blocks", [])

    def test_keeps_to_the_grammar(self, recording: Recording) -> None:
        events = [chunk.WhichOneof("event") for chunk in chunks_of(recording)]
        assert (events[0], events.count("started")) == ("started", 1)
        assert events.count("finish") == 1
        assert set(events[events.index("finish") + 1 :]) <= {"usage"}


def streams(recording: Recording) -> bool:
    return answered(recording) and recording.stream


@pytest.mark.parametrize("recording", recordings.params("messages", streams))
class TestCuts:
    def test_one_byte_at_a_time(self, recording: Recording) -> None:
        body = recording.body
        assert chunks_of(recording, (body[i : i + 1] for i in range(len(body)))) == chunks_of(recording)

    @pytest.mark.parametrize("seed", range(3))
    def test_at_random(self, recording: Recording, seed: int) -> None:
        assert chunks_of(recording, recordings.cuts(recording.body, seed)) == chunks_of(recording)

    def test_usage_is_told_at_once(self, recording: Recording) -> None:
        """After a cancel nothing more is heard: what is known must be out before the first word."""
        events = [chunk.WhichOneof("event") for chunk in chunks_of(recording)]
        assert events[:2] == ["started", "usage"]

    @pytest.mark.parametrize("last", [b"event: message_stop", b"event: message_delta", b"event: content_block_stop"])
    def test_broken_off_is_never_an_answer(self, recording: Recording, last: bytes) -> None:
        with pytest.raises(CallError) as caught:
            chunks_of(recording, [recording.body[: recording.body.index(last)]])
        assert caught.value.reason is Reason.UPSTREAM_TRUNCATED
        assert caught.value.usage is not None
        assert caught.value.usage.input_tokens >= recording.expect["usage_first"]["input_tokens"]
        assert caught.value.usage.output_tokens > 0


@pytest.mark.parametrize("recording", recordings.params("messages", lambda each: each.status != 200))
def test_an_error_answer(recording: Recording) -> None:
    error = FAMILY.decode_error(recording.status, recording.headers, recording.body, UPSTREAM)
    said = recording.expect["error"]
    assert (error.type, error.upstream_status) == (said["error"]["type"], recording.status)
    assert error.upstream_request_id == said["request_id"]
    if recording.status == 401:
        assert error.reason is Reason.UPSTREAM_CREDENTIAL
        assert said["error"]["message"] not in error.message
    else:
        assert (error.reason, error.code) == (Reason.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded")
        assert error.message == said["error"]["message"]


class TestRequests:
    @pytest.mark.parametrize("recording", recordings.params("messages"))
    def test_the_same_wishes_make_the_same_request(self, recording: Recording) -> None:
        ours = encoded(request_of(recording))
        theirs = plain(recording.request)
        assert_valid(ours, "messages.request")
        assert plain(ours) == theirs

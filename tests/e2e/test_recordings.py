"""Real providers' answers through the whole chain: what the client reads is what was recorded, in OpenAI's own form."""

from __future__ import annotations

from typing import Any

import pytest
from support import recordings, schemas
from support.client import Answer, Client, Stream, ask
from support.recordings import Recording, reply_of
from support.upstream import Reply, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

FINISH = {"eos": "stop", None: None}
MEMBERS = {"message", "type", "param", "code"}
ERRORS = {
    400: (400, "invalid_request_error"),
    401: (502, "bad_gateway"),
    404: (404, "invalid_request_error"),
    429: (429, "rate_limit_exceeded"),
}


def answered(recording: Recording) -> bool:
    return recording.status == 200 and not recording.fails


def request_of(recording: Recording) -> dict[str, Any]:
    """What the recorded client sent, to our name of the model; something small where it was not recorded."""
    request = recording.content["request_body"] or ask(stream=recording.stream)
    # Mistral's own SDK leaves out the type of a tool and writes an empty content as a list.
    tools = [{"type": "function", **tool} for tool in request.get("tools") or ()]
    messages = [{**each, "content": ""} if each.get("content") == [] else each for each in request["messages"]]
    return {**request, "model": "scripted", "messages": messages, **({"tools": tools} if tools else {})}


def assert_usage(usage: dict[str, Any] | None, recording: Recording) -> None:
    assert usage is not None
    counted = recording.expect.get("usage")
    if counted is None:
        assert usage["estimated"] is True
        return
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert usage[name] == counted[name]
    for name, value in (counted.get("completion_tokens_details") or {}).items():
        assert usage["completion_tokens_details"][name] == (value or 0)


def assert_choice(message: dict[str, Any], finish: str | None, expected: dict[str, Any]) -> None:
    assert (message.get("content") or "") == (expected.get("text") or "")
    assert (message.get("reasoning_content") or "") == (expected.get("reasoning") or "")
    assert (message.get("refusal") or "") == (expected.get("refusal") or "")
    calls = [{"id": c["id"], **c["function"]} for c in message.get("tool_calls") or []]
    assert [{name: call[name] for name in ("id", "name", "arguments")} for call in calls] == (
        expected.get("tool_calls") or []
    )
    assert message.get("function_call") == expected.get("function_call")
    assert finish == FINISH.get(expected["finish_reason"], expected["finish_reason"])


def accumulated(stream: Stream, index: int) -> tuple[dict[str, Any], str]:
    """The message and the finish that a reader of OpenAI's streams makes of a choice."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "refusal": ""}
    calls: dict[int, dict[str, Any]] = {}
    for delta in stream.deltas(index):
        for name in message:
            message[name] += delta.get(name) or ""
        for piece in delta.get("tool_calls") or ():
            if piece["index"] not in calls:
                assert piece["type"] == "function"
                calls[piece["index"]] = {"id": piece["id"], "function": {**piece["function"], "arguments": ""}}
            else:
                assert piece.keys().isdisjoint(("id", "type"))
            calls[piece["index"]]["function"]["arguments"] += piece["function"]["arguments"]
    message["tool_calls"] = [calls[i] for i in sorted(calls)]
    (finish,) = (choice["finish_reason"] for choice in stream.choices(index) if choice["finish_reason"] is not None)
    return message, finish


def assert_stream(stream: Stream, recording: Recording) -> None:
    assert stream.done
    for chunk in stream.chunks:
        schemas.assert_valid(chunk, schemas.CHUNK)
    *chunks, last = stream.chunks
    assert (last["choices"], all(chunk["choices"] and chunk["usage"] is None for chunk in chunks)) == ([], True)
    assert_usage(last["usage"], recording)
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in stream.chunks}) == 1
    assert last["model"] == recording.expect["model"]
    for expected in recording.expect["choices"]:
        index = expected["index"]
        assert [("role" in delta) for delta in stream.deltas(index)].count(True) == 1
        assert stream.deltas(index)[0]["role"] == "assistant"
        assert_choice(*accumulated(stream, index), expected)


@pytest.mark.parametrize("recording", recordings.params("chat", lambda each: answered(each) and not each.stream))
async def test_an_answer_in_one_piece(recording: Recording, client: Client, first: ScriptedUpstream) -> None:
    first.will(reply_of(recording))
    answer = await client.chat(request_of(recording))
    assert answer.status == 200
    schemas.assert_valid(answer.json, schemas.RESPONSE)
    assert answer.json["model"] == recording.expect["model"]
    assert [choice["index"] for choice in answer.json["choices"]] == [
        choice["index"] for choice in recording.expect["choices"]
    ]
    for choice, expected in zip(answer.json["choices"], recording.expect["choices"], strict=True):
        assert_choice(choice["message"], choice["finish_reason"], expected)
    assert_usage(answer.json["usage"], recording)


@pytest.mark.parametrize("recording", recordings.params("chat", lambda each: answered(each) and each.stream))
class TestStreams:
    async def test_whole(self, recording: Recording, client: Client, first: ScriptedUpstream) -> None:
        first.will(reply_of(recording))
        request = {**request_of(recording), "stream_options": {"include_usage": True}}
        assert_stream(await client.stream(request), recording)

    async def test_cut_anywhere(self, recording: Recording, client: Client, first: ScriptedUpstream) -> None:
        first.will(reply_of(recording, recordings.cuts(recording.body, 1)))
        request = {**request_of(recording), "stream_options": {"include_usage": True}}
        assert_stream(await client.stream(request), recording)

    async def test_folded(self, recording: Recording, client: Client, first: ScriptedUpstream) -> None:
        """An upstream that streams where one answer was asked for is read all the same."""
        first.will(reply_of(recording))
        answer = await client.chat({**request_of(recording), "stream": False})
        schemas.assert_valid(answer.json, schemas.RESPONSE)
        for expected in recording.expect["choices"]:
            choice = answer.json["choices"][expected["index"]]
            assert_choice(choice["message"], choice["finish_reason"], expected)
        assert_usage(answer.json["usage"], recording)


def forwarded(request: dict[str, Any]) -> dict[str, Any]:
    """A request without what we may add or leave out: null means absent, and usage is always asked for."""
    said = {name: value for name, value in request.items() if value not in (None, [], False)}
    said["messages"] = [{name: value for name, value in each.items() if value is not None} for each in said["messages"]]
    said.pop("stream_options", None)
    return said


@pytest.mark.parametrize("recording", recordings.params("chat", lambda each: each.content["request_body"] is not None))
async def test_the_request_arrives_as_it_was_sent(
    recording: Recording, client: Client, first: ScriptedUpstream
) -> None:
    first.will(Reply.json({}, 500))
    sent = request_of(recording)
    await client.chat(sent)
    (seen,) = first.requests
    assert forwarded(seen.json) == forwarded({**sent, "model": "scripted-model"})


@pytest.mark.parametrize("recording", recordings.params("chat", lambda each: each.status != 200))
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_error(recording: Recording, streamed: bool, client: Client, first: ScriptedUpstream) -> None:
    first.will(reply_of(recording))
    answer: Answer = await client.chat({**request_of(recording), "stream": streamed})
    status, kind = ERRORS[recording.status]
    if recording.status == 401:
        assert (answer.status, answer.error()["type"]) == (status, kind)
    else:
        said = recording.expect["error"]["error"]
        error = answer.error(*(name for name in said if name not in MEMBERS))
        assert (answer.status, error["type"]) == (status, kind)
        for name in said.keys() - {"type", "param"}:
            assert error[name] == said[name]


@pytest.mark.parametrize("recording", recordings.params("chat", lambda each: each.status == 200 and each.fails))
async def test_an_error_inside_a_stream(recording: Recording, client: Client, first: ScriptedUpstream) -> None:
    first.will(reply_of(recording))
    stream = await client.stream(request_of(recording))
    assert not stream.done
    assert stream.error is not None
    assert stream.error["message"] == recording.expect["error"]["error"]["message"]

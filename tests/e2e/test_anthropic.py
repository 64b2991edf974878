"""Anthropic behind the gateway: its recorded answers read as OpenAI's, and clients that know nothing of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
import pytest_asyncio
from support import recordings, schemas, services
from support.anthropic import message, openai_request, streamed
from support.client import MESSAGES, Client
from support.recordings import Recording, reply_of
from support.services import Service
from support.upstream import Reply, ScriptedUpstream

pytestmark = pytest.mark.asyncio(loop_scope="session")

Object = dict[str, Any]
FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
MODELS = ("claude-sonnet-4-5", "claude-opus-4-6")
TEXT = {"type": "text", "text": "Hello."}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@dataclass(frozen=True)
class AnthropicChain:
    upstream: ScriptedUpstream
    gateway: Service


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def anthropic(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AnthropicChain]:
    """A scripted upstream, an anthropic worker that serves every model of these tests, and a gateway."""
    folder = tmp_path_factory.mktemp("anthropic")
    recorded = [param.values[0] for param in recordings.params("messages")]
    models = [*MODELS, *(each.request["model"] for each in recorded if isinstance(each, Recording))]
    async with ScriptedUpstream() as upstream:
        settings = {"claude": {"base_url": upstream.url, "credential_env": "SCRIPTED_CREDENTIAL", "models": models}}
        async with (
            services.worker("anthropic", folder, settings, {"SCRIPTED_CREDENTIAL": "sk-ant-scripted"}) as worker,
            services.gateway({"workers": {"anthropic": worker.address}}, folder) as gateway,
        ):
            yield AnthropicChain(upstream, gateway)


@pytest_asyncio.fixture(loop_scope="session")
async def claude(anthropic: AnthropicChain) -> AsyncIterator[ScriptedUpstream]:
    """The upstream; at a test's end it must have been asked for all that it had to say."""
    yield anthropic.upstream
    assert not anthropic.upstream.forget(), "replies that nobody asked for"


@pytest_asyncio.fixture(loop_scope="session")
async def client(anthropic: AnthropicChain) -> AsyncIterator[Client]:
    async with Client(anthropic.gateway.address) as client:
        yield client


def ask(**members: Any) -> Object:
    return {"model": "claude-sonnet-4-5", "messages": MESSAGES, **members}


def assert_choice(said: Object, finish: str, recording: Recording) -> None:
    (expected,) = recording.expect["choices"]
    assert (said.get("content") or "") == expected["text"]
    assert (said.get("reasoning_content") or "") == expected["reasoning"]
    calls = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in said["tool_calls"]]
    assert [(i, name, json.loads(arguments)) for i, name, arguments in calls] == [
        (call["id"], call["name"], json.loads(call["arguments"])) for call in expected["tool_calls"]
    ]
    assert finish == FINISH[expected["finish_reason"]]


def assert_usage(usage: Object | None, recording: Recording) -> None:
    assert usage is not None
    counted = {**recording.expect.get("usage_first", {}), **recording.expect["usage"]}
    cached = counted.get("cache_read_input_tokens", 0)
    prompt = counted["input_tokens"] + cached + counted.get("cache_creation_input_tokens", 0)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, counted["output_tokens"])
    assert usage["prompt_tokens_details"]["cached_tokens"] == cached


def answers(stream: bool) -> list[Any]:
    return recordings.params("messages", lambda each: each.status == 200 and each.stream is stream)


@pytest.mark.parametrize("recording", answers(False))
async def test_a_recorded_answer_in_one_piece(recording: Recording, client: Client, claude: ScriptedUpstream) -> None:
    claude.will(reply_of(recording))
    answer = await client.chat(openai_request(recording.request))
    assert answer.status == 200
    schemas.assert_valid(answer.json, schemas.RESPONSE)
    assert (answer.json["id"], answer.json["model"]) == (recording.expect["id"], recording.expect["model"])
    (choice,) = answer.json["choices"]
    assert_choice({"tool_calls": [], **choice["message"]}, choice["finish_reason"], recording)
    assert_usage(answer.json["usage"], recording)


@pytest.mark.parametrize("recording", answers(True))
@pytest.mark.parametrize("seed", [None, 1])
async def test_a_recorded_stream(
    recording: Recording, seed: int | None, client: Client, claude: ScriptedUpstream
) -> None:
    claude.will(reply_of(recording, None if seed is None else recordings.cuts(recording.body, seed)))
    stream = await client.stream({**openai_request(recording.request), "stream_options": {"include_usage": True}})
    assert stream.done
    for chunk in stream.chunks:
        schemas.assert_valid(chunk, schemas.CHUNK)
    assert {chunk["id"] for chunk in stream.chunks} == {recording.expect["id"]}
    assert_choice(*stream.message(), recording)
    assert_usage(stream.chunks[-1]["usage"], recording)


@pytest.mark.parametrize("recording", recordings.params("messages", lambda each: each.status != 200))
async def test_a_recorded_error(recording: Recording, client: Client, claude: ScriptedUpstream) -> None:
    claude.will(reply_of(recording))
    answer = await client.chat({**openai_request(recording.request), "stream": False})
    if recording.status == 401:
        assert (answer.status, answer.error()["type"]) == (502, "bad_gateway")
    else:
        assert (answer.status, answer.error()["code"]) == (400, "context_length_exceeded")


async def test_the_request_that_arrives(client: Client, claude: ScriptedUpstream) -> None:
    claude.will(Reply.json(message(TEXT)))
    assert (await client.chat(ask())).json["choices"][0]["message"]["content"] == "Hello."
    request = await claude.request()
    assert (request.method, request.path) == ("POST", "/v1/messages")
    assert (request.headers["x-api-key"], request.headers["anthropic-version"]) == ("sk-ant-scripted", "2023-06-01")


async def test_an_overload_inside_a_stream(client: Client, claude: ScriptedUpstream) -> None:
    begun = streamed(message(TEXT)).partition(b"event: content_block_stop")[0]
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    claude.will(Reply.sse(begun, b"event: error\ndata: %b\n\n" % json.dumps(error).encode()))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done) == ("Hello.", False)
    assert stream.error is not None
    assert stream.error["message"] == "Overloaded"


async def test_a_stream_that_just_ends(client: Client, claude: ScriptedUpstream) -> None:
    claude.will(Reply.sse(streamed(message(TEXT)).partition(b"event: message_stop")[0]))
    stream = await client.stream(ask())
    assert (stream.text(), stream.done, stream.error is not None) == ("Hello.", False, True)


async def test_ignored_parameters_are_named(client: Client, claude: ScriptedUpstream) -> None:
    claude.will(Reply.json(message(TEXT)))
    answer = await client.chat(ask(seed=1, temperature=1.5, **{"größe,\n": 1}))
    assert answer.headers["x-trestle-ignored-params"] == "temperature,seed,gr%C3%B6%C3%9Fe%2C%0A"
    strict = await client.chat(ask(seed=1), x_trestle_strict="true")
    assert (strict.status, strict.error()["param"]) == (400, "seed")


async def test_ignored_parameters_are_named_after_another_try(client: Client, claude: ScriptedUpstream) -> None:
    claude.will(Reply.json({"type": "error", "error": {"type": "overloaded_error", "message": "Busy."}}, 529))
    claude.will(Reply.sse(streamed(message(TEXT))))
    stream = await client.stream(ask(seed=1))
    assert (stream.text(), stream.done) == ("Hello.", True)
    named = [stream.headers[name] for name in ("x-trestle-ignored-params", "x-trestle-attempts")]
    assert named == ["seed", "2"]


async def test_several_choices_are_several_calls(client: Client, claude: ScriptedUpstream) -> None:
    claude.will(Reply.json(message(TEXT)), Reply.json(message(TEXT)))
    answer = (await client.chat(ask(n=2))).json
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["Hello.", "Hello."]
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]) == (20, 10)


def usual(said: Any) -> dict[str, Any]:
    """The members that OpenAI's own API has."""
    calls = [call.model_dump(include={"id", "type", "function"}) for call in said.tool_calls or ()]
    return {"role": "assistant", "content": said.content, "tool_calls": calls or None}


@pytest.mark.parametrize("untouched", [True, False])
@pytest.mark.parametrize("model", MODELS)
async def test_the_openai_sdk_goes_on_after_a_call(
    model: str, untouched: bool, anthropic: AnthropicChain, claude: ScriptedUpstream
) -> None:
    """It sends the assistant's message back as it came, what it does not know included: the thinking goes on. Sent back
    with the usual members only, the next call goes without thinking, and is answered."""
    call = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"place": "Oslo"}}
    thought = {"type": "thinking", "thinking": "Look it up.", "signature": "sig"}
    claude.will(Reply.json(message(thought, call, stop="tool_use")), Reply.json(message(TEXT)))
    base_url = f"http://{anthropic.gateway.address}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="any", max_retries=0) as sdk:
        messages: list[Any] = [{"role": "user", "content": "How is Oslo?"}]
        for _ in range(2):
            answer = await sdk.chat.completions.create(
                model=model, messages=messages, tools=TOOLS, reasoning_effort="high"
            )
            said = answer.choices[0].message
            messages.append(said if untouched else usual(said))
            messages += [{"role": "tool", "tool_call_id": c.id, "content": "Rain."} for c in said.tool_calls or ()]
    first, second = (await claude.request()).json, (await claude.request()).json
    assert "thinking" in first
    assert ("thinking" in second) is untouched
    *thoughts, used = second["messages"][1]["content"]
    assert thoughts == ([thought] if untouched else [])
    assert used["type"] == "tool_use"
    assert answer.choices[0].message.content == "Hello."

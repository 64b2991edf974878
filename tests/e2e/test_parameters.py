"""Every parameter of a chat completion, at every family, through the whole chain: what becomes of it is what the family
declares (docs/parameters.md), on the wire to the upstream and in what the client is told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest
import pytest_asyncio
from support import anthropic, gemini, services
from support.client import MESSAGES, Client
from support.upstream import Reply, Request, ScriptedUpstream, completion, text_stream

from worker import registry

on_the_shared_loop = pytest.mark.asyncio(loop_scope="session")
JSON = dict[str, Any]
IGNORED: Final = "x-trestle-ignored-params"
SAID: Final = anthropic.message({"type": "text", "text": "{}"})
# By family: the model that is asked for, and its upstream's answer whole and streamed. A local one needs no upstream.
MODELS: Final = {"anthropic": "claude-sonnet-4-5", "echo": "echo", "gemini": "gemini-2.5-flash", "openai": "listed"}
REPLIES: Final[Mapping[str, tuple[Reply, Reply]]] = {
    "anthropic": (Reply.json(SAID), Reply.sse(anthropic.streamed(SAID))),
    "gemini": (Reply.json(gemini.answer({"text": "{}"})), Reply.sse(gemini.events(gemini.answer({"text": "{}"})))),
    "openai": (Reply.json(completion("{}")), Reply.sse(*text_stream(["{}"]))),
}
FUNCTION: Final = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {}}}}
TOOL: Final = {"type": "function", "function": FUNCTION}
# By parameter: a valid value that asks for something. WITH: what it needs beside it.
VALUES: Final[Mapping[str, Any]] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "echo": {"tokens": 3},
    "frequency_penalty": 0.7,
    "function_call": {"name": "f"},
    "functions": [FUNCTION],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 77,
    "max_tokens": 78,
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello?"}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go on."},
    ],
    "metadata": {"user_id": "u"},
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": "a"},
    "presence_penalty": -0.7,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "low",
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    "safety_identifier": "who",
    "seed": -(2**31) + 5,
    "service_tier": "flex",
    "stop": ["one", "two"],
    "store": True,
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.3,
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "tools": [TOOL],
    "top_logprobs": 2,
    "top_p": 0.3,
    "user": "who",
    "verbosity": "low",
    "web_search_options": {},
}
WITH: Final[Mapping[str, JSON]] = {
    "function_call": {"functions": [FUNCTION]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": [TOOL]},
    "top_logprobs": {"logprobs": True},
}
# Where a family takes other values than OpenAI itself.
VALUES_AT: Final[Mapping[tuple[str, str], Any]] = {
    ("anthropic", "service_tier"): "default",
    ("gemini", "modalities"): ["text", "image"],
    ("gemini", "max_tokens"): 20,
}


@dataclass(frozen=True)
class Families:
    """A gateway before a worker of each family; upstreams: by family, of those that have one."""

    gateway: services.Service
    upstreams: Mapping[str, ScriptedUpstream]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def families(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Families]:
    folder = tmp_path_factory.mktemp("parameters")
    async with AsyncExitStack() as stack:
        upstreams: dict[str, ScriptedUpstream] = {}
        workers: dict[str, str] = {}
        for family, model in MODELS.items():
            settings = None
            if family in REPLIES:
                upstreams[family] = await stack.enter_async_context(ScriptedUpstream())
                settings = {"scripted": {"base_url": upstreams[family].url, "models": [model], "retries": 0}}
            worker = await stack.enter_async_context(services.worker(family, folder, settings))
            workers[family] = worker.address
        gateway = await stack.enter_async_context(services.gateway({"workers": workers}, folder))
        yield Families(gateway, upstreams)


@pytest_asyncio.fixture(loop_scope="session")
async def client(families: Families) -> AsyncIterator[Client]:
    async with Client(families.gateway.address) as client:
        yield client


@dataclass(frozen=True)
class Told:
    """What a client was told: status, names of ignored parameters, the error's param. sent: what the upstream got."""

    status: int
    ignored: list[str]
    param: str | None
    sent: list[Request]
    usage: bool = False


async def tell(families: Families, client: Client, family: str, members: JSON, calls: int, **headers: str) -> Told:
    """One request with these members. calls: how many the upstream is to get; it must get no others."""
    upstream = families.upstreams.get(family)
    streamed = members.get("stream") is True
    if upstream is not None:
        upstream.will(*[REPLIES[family][streamed]] * calls)
    request = {"model": MODELS[family], "messages": MESSAGES, **members}
    answer = await client.chat(request, **headers)
    sent: list[Request] = []
    if upstream is not None:
        sent = list(upstream.requests)
        assert not upstream.forget(), f"fewer calls than {calls}: {answer.body!r}"
        assert len(sent) == calls
    names = answer.headers.get(IGNORED, "")
    param = answer.error()["param"] if answer.status != 200 else None
    if answer.status == 200 and streamed:
        assert answer.body.endswith(b"data: [DONE]\n\n")
    return Told(answer.status, names.split(",") if names else [], param, sent, b'"total_tokens"' in answer.body)


def heard(told: Told) -> list[tuple[str, bytes]]:
    """What the upstream was asked for."""
    return [(request.path, request.body) for request in told.sent]


def test_every_family_is_here() -> None:
    assert set(MODELS) == set(registry.names())
    declared = {name for family in MODELS for name in registry.family(family).params}
    assert declared == VALUES.keys() | {"model"}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("family", "name"),
    [(family, name) for family in MODELS for name in registry.family(family).params if name != "model"],
)
@on_the_shared_loop
async def test_a_parameter(family: str, name: str, streamed: bool, families: Families, client: Client) -> None:
    fate = registry.family(family).params[name]
    value = VALUES_AT.get((family, name), VALUES[name])
    around: JSON = {**({"stream": True} if streamed else {}), **WITH.get(name, {})}
    members = {**around, name: value}
    calls = 2 if name == "n" and not getattr(registry.family(family), "native_n", True) else 1
    if fate == "rejected":
        told = await tell(families, client, family, members, calls=0)
        assert (told.status, told.param) == (400, name)
        return
    told = await tell(families, client, family, members, calls)
    assert told.status == 200, told
    if fate == "ignored":
        assert name in told.ignored
        assert set(told.ignored) <= {name, *WITH.get(name, {})}
        strict = await tell(families, client, family, members, calls=0, x_trestle_strict="true")
        assert (strict.status, strict.param) == (400, told.ignored[0])
    else:
        assert told.ignored == []
        strict = await tell(families, client, family, members, calls, x_trestle_strict="true")
        assert (strict.status, heard(strict)) == (200, heard(told)), strict
    if family in families.upstreams:
        await assert_wire(families, client, family, name, value, around, told)
    if name == "stream_options":
        assert told.usage


async def assert_wire(
    families: Families, client: Client, family: str, name: str, value: Any, around: JSON, told: Told
) -> None:
    """What is forwarded is unchanged; what is ignored leaves no trace, and everything else one."""
    fate = registry.family(family).params[name]
    if fate == "forwarded":
        assert told.sent[0].json[name] == value
        assert json.dumps(value, separators=(",", ":")) in told.sent[0].body.decode().replace(": ", ":").replace(
            ", ", ","
        )
        return
    without = await tell(families, client, family, {key: each for key, each in around.items() if key != name}, calls=1)
    if name == "stream_options" or (name == "stream" and around):
        return  # usage is asked for anyhow
    assert (heard(told) == heard(without)) is (fate == "ignored")


@pytest.mark.parametrize("family", MODELS)
@on_the_shared_loop
async def test_the_model(family: str, families: Families, client: Client) -> None:
    told = await tell(families, client, family, {}, calls=1)
    assert (told.status, told.ignored) == (200, [])
    for request in told.sent:
        assert MODELS[family] in request.path or request.json["model"] == MODELS[family]


@pytest.mark.parametrize("family", MODELS)
@on_the_shared_loop
async def test_null_is_absent(family: str, families: Families, client: Client) -> None:
    plain = await tell(families, client, family, {}, calls=1)
    nulls = dict.fromkeys(VALUES.keys() - {"model", "messages"})
    told = await tell(families, client, family, nulls, calls=1, x_trestle_strict="true")
    if family == "openai":
        nulls = {"echo": None}  # to it an unknown member like any other
        assert {**plain.sent[0].json, **nulls} == told.sent[0].json
    else:
        assert heard(told) == heard(plain)
    assert (told.status, told.ignored) == (200, [])


@pytest.mark.parametrize("family", ["anthropic", "gemini"])
@on_the_shared_loop
async def test_a_name_longer_than_an_error_may_be(family: str, families: Families, client: Client) -> None:
    """The client's own words in an error: what does not fit into a status is cut, and the worker goes on."""
    told = await tell(families, client, family, {"🎉" * 5000: 1}, calls=0, x_trestle_strict="true")
    assert told.status == 400
    assert told.param is not None
    assert set(told.param) == {"🎉"}


# Beside what is known, at each level. Its numbers are of kinds that a decoder would write in another way.
UNKNOWN: Final = '"z_@":1.0,"b":1,"a":1e400,"c":123456789012345678901234567890,"o":{"z":-0.0,"a":[1E5,1.50]}'
BODY: Final = """{"model":"listed",@,"messages":[
{"role":"user","content":[{"type":"text","text":"a",@},{"type":"image_url","image_url":{"url":"data:x",@},@},
{"type":"input_audio","input_audio":{"data":"AA==","format":"wav",@},@},{"type":"file","file":{"file_id":"f",@},@},
{"type":"vendor_part",@}],@},
{"role":"assistant","content":[{"type":"refusal","refusal":"no",@}],"tool_calls":[
{"id":"1","type":"function","function":{"name":"f","arguments":"{}",@},@},
{"id":"2","type":"custom","custom":{"name":"f","input":"",@},@},{"id":"3","type":"vendor_call",@}],
"function_call":{"name":"f","arguments":"{}",@},"audio":{"id":"a",@},@}],
"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object",@},@},@},{"type":"vendor_tool",@}],
"functions":[{"name":"f","parameters":{@},@}],"tool_choice":{"type":"function","function":{"name":"f",@},@},
"function_call":{"name":"f",@},
"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":{@},@},@},
"prediction":{"type":"content","content":"a",@},"metadata":{@},"stream":true,"stream_options":{@}}"""


@on_the_shared_loop
async def test_unknown_members_go_on_byte_for_byte_at_every_level(families: Families, client: Client) -> None:
    pieces = BODY.replace("\n", "").split("@")
    unknown = [UNKNOWN.replace("@", str(level)) for level in range(len(pieces) - 1)]
    body = "".join(piece + more for piece, more in zip(pieces, [*unknown, ""], strict=True))
    upstream = families.upstreams["openai"]
    upstream.will(REPLIES["openai"][True])
    answer = await client.ask("POST", "/v1/chat/completions", body.encode())
    assert answer.status == 200, answer.body
    sent = upstream.requests[0].body.decode()
    assert not upstream.forget()
    for members in unknown:
        assert members in sent
    # And each at its level: the same objects, their numbers compared as text.
    expected = json.loads(body, parse_int=str, parse_float=str)
    expected["stream_options"]["include_usage"] = True
    assert json.loads(sent, parse_int=str, parse_float=str) == expected

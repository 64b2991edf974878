"""What `/openapi.json` says: that it can be read, that it is what the gateway does, and that what a generator makes of
it finds no fault in the gateway."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from schemathesis import Case, GenerationMode, checks
from schemathesis.specs.openapi.schemas import OpenApiSchema
from support import services
from support.client import MESSAGES, Client, ask
from support.services import Service
from support.upstream import Reply, ScriptedUpstream, chunk, completion, sse

JSON = dict[str, Any]
on_the_shared_loop = pytest.mark.asyncio(loop_scope="session")
KEY = "sk-a-key-of-this-test"
ENDPOINTS = ["/chat/completions", "/completions", "/embeddings", "/moderations", "/models", "/models/{id}"]
WITHOUT_END = "/sessions/{id}/events"  # test_sessions.py is about it
ROOT_ENDPOINTS = ["/healthz", "/readyz", "/openapi.json"]


@dataclass(frozen=True)
class Served:
    """An open gateway and one that asks for KEY, before the echo and, as `scripted`, an upstream of the test's own."""

    gateway: Service
    guarded: Service
    upstream: ScriptedUpstream
    document: JSON


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("openapi")
    async with ScriptedUpstream() as upstream:
        upstreams = {"first": {"base_url": upstream.url, "models": ["listed"], "retries": 0}}
        async with services.worker("echo", folder) as echo, services.worker("openai", folder, upstreams) as openai:
            models = [{"name": "scripted", "targets": [{"worker": "openai", "model": "m"}]}]
            common: JSON = {"workers": {"echo": echo.address, "openai": openai.address}, "models": models}
            keys: JSON = {"auth": "keys", "keys": [{"name": "test", "key_env": "TEST_KEY"}]}
            async with (
                services.gateway(common, folder) as gateway,
                services.gateway({**common, **keys}, folder, "guarded", {"TEST_KEY": KEY}) as guarded,
            ):
                async with Client(gateway.address) as client:
                    document = (await client.ask("GET", "/openapi.json")).json
                yield Served(gateway, guarded, upstream, document)


@pytest_asyncio.fixture(loop_scope="session")
async def client(served: Served) -> AsyncIterator[Client]:
    async with Client(served.gateway.address) as client:
        yield client


def validator(document: JSON, name: str) -> Draft202012Validator:
    """Of the component of this name."""
    resource = Resource.from_contents({"$schema": "https://json-schema.org/draft/2020-12/schema", **document})
    registry: Registry[Any] = Registry().with_resource("urn:api", resource)
    return Draft202012Validator({"$ref": f"urn:api#/components/schemas/{name}"}, registry=registry)


def assert_valid(document: JSON, name: str, value: Any) -> None:
    faults = [f"{fault.json_path}: {fault.message[:300]}" for fault in validator(document, name).iter_errors(value)]
    assert not faults, f"not a {name}: {faults[:5]} in {json.dumps(value)[:2000]}"


def assert_events_valid(document: JSON, name: str, body: str) -> None:
    """A whole stream, from its first event to its proper end."""
    events = [event.removeprefix("data: ") for event in body.split("\n\n") if event and not event.startswith(":")]
    assert events.pop() == "[DONE]"
    assert events
    for event in events:
        assert_valid(document, name, json.loads(event))


class TestDocument:
    """Of the open gateway, unless it says otherwise."""

    def test_it_is_openapi(self, served: Served) -> None:
        assert served.document["openapi"] == "3.1.0"
        schemathesis.openapi.from_dict(served.document).validate()
        for name, schema in served.document["components"]["schemas"].items():
            Draft202012Validator.check_schema(schema)
            assert validator(served.document, name).is_valid({}) in (True, False), "every reference leads somewhere"

    def test_what_is_reserved_inside_is_not_told(self, served: Served) -> None:
        text = json.dumps(served.document)
        assert not re.search(r"(extra|whole|other)-[0-9a-f]{32}", text)
        assert '"extra"' not in text

    @on_the_shared_loop
    async def test_it_is_the_same_for_every_process(self, served: Served) -> None:
        async with Client(served.guarded.address) as client:
            answer = await client.ask("GET", "/openapi.json")
        assert answer.status == 200, "it asks for no key"
        guarded, open_ = answer.json, copy.deepcopy(served.document)
        schemes = guarded["components"].pop("securitySchemes")
        assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
        assert schemes["apiKey"] == {"type": "apiKey", "in": "header", "name": "x-api-key"}
        for path, methods in guarded["paths"].items():
            for operation in (methods[method] for method in ("get", "post") if method in methods):
                required = operation.pop("security", [])
                assert required == ([] if path in ROOT_ENDPOINTS else [{"bearer": []}, {"apiKey": []}]), path
                assert ("401" in operation["responses"]) is bool(required), path
        for document in (guarded, open_):
            for methods in document["paths"].values():
                for method in methods.keys() - {"servers"}:
                    methods[method]["responses"].pop("401", None)
        assert guarded == open_

    @on_the_shared_loop
    async def test_its_paths_are_served_with_and_without_the_version(self, served: Served, client: Client) -> None:
        document = served.document
        assert list(document["paths"]) == [*ENDPOINTS, WITHOUT_END, *ROOT_ENDPOINTS]
        assert [server["url"] for server in document["servers"]] == ["/v1", "/"]
        for path, methods in document["paths"].items():
            servers = [server["url"] for server in methods.get("servers", document["servers"])]
            assert servers == (["/"] if path in ROOT_ENDPOINTS else ["/v1", "/"])
            for server in servers:
                asked = server.rstrip("/") + path + ("?after=none" if path == WITHOUT_END else "")
                answer = await client.ask("POST" if "post" in methods else "GET", asked)
                assert answer.status in (200, 400, 404)
                assert answer.status == 200 or answer.error()["code"] != "unknown_url", server + path

    def test_operations_have_names_of_their_own(self, served: Served) -> None:
        operations = [
            methods[method]
            for methods in served.document["paths"].values()
            for method in methods
            if method != "servers"
        ]
        assert len({operation["operationId"] for operation in operations}) == len(operations) == 10


PARTS = [
    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
    {"type": "image_url", "image_url": {"url": "data:x", "detail": None}},
    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    {"type": "file", "file": {"file_id": "f"}},
    {"type": "video_url", "video_url": {}},
]
FUNCTION = {"name": "f", "parameters": {"type": "object"}, "strict": None}
RICH = ask(
    messages=[
        *MESSAGES,
        {"role": "user", "content": PARTS, "name": "n"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "seal": None},
                {"id": "2", "type": "custom", "custom": {"name": "f", "input": ""}},
                {"id": "3", "type": "vendor"},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a"},
    ],
    tools=[{"type": "function", "function": FUNCTION}, {"type": "web_search"}],
    tool_choice={"type": "function", "function": {"name": "f"}},
    response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    stop=["a"],
    temperature=None,
    metadata={"a": "b"},
    store=False,
    vendor={"deep": [1.0]},
)
# A request, the name of its schema, whether the gateway takes it. The schema must think so too.
JUDGED: dict[str, tuple[str, JSON, bool]] = {
    "rich": ("CreateChatCompletionRequest", RICH, True),
    "no messages": ("CreateChatCompletionRequest", {**RICH, "messages": []}, False),
    "no model": ("CreateChatCompletionRequest", {"messages": MESSAGES}, False),
    "null for what must be there": ("CreateChatCompletionRequest", {**RICH, "model": None}, False),
    "a known kind without its member": (
        "CreateChatCompletionRequest",
        {**RICH, "messages": [{"role": "user", "content": [{"type": "text"}]}]},
        False,
    ),
    "a kind of no name": ("CreateChatCompletionRequest", {**RICH, "tools": [{"function": FUNCTION}]}, False),
    "metadata that are none": ("CreateChatCompletionRequest", {**RICH, "metadata": "a"}, False),
    "temperature": ("CreateChatCompletionRequest", {**RICH, "temperature": 2.1}, False),
    "five stops": ("CreateChatCompletionRequest", {**RICH, "stop": list("abcde")}, False),
    "a text's completion": ("CreateCompletionRequest", {"model": "scripted", "prompt": [[1, 2], [3]], "x": 1}, True),
    "best_of": ("CreateCompletionRequest", {"model": "scripted", "prompt": "a", "best_of": -1}, False),
    "embedding": ("CreateEmbeddingRequest", {"model": "scripted", "input": ["a"], "encoding_format": "base64"}, True),
    "embedding in another form": (
        "CreateEmbeddingRequest",
        {"model": "scripted", "input": "a", "encoding_format": "x"},
        True,
    ),
    "embedding in no form": ("CreateEmbeddingRequest", {"model": "m", "input": "a", "encoding_format": ""}, False),
    "moderation": ("CreateModerationRequest", {"input": ["a"], "model": "scripted"}, True),
    "moderation of nothing": ("CreateModerationRequest", {"input": None}, False),
}
PATHS = dict(
    zip(
        ("CreateChatCompletionRequest", "CreateCompletionRequest", "CreateEmbeddingRequest", "CreateModerationRequest"),
        ENDPOINTS,
        strict=False,
    )
)


@on_the_shared_loop
@pytest.mark.parametrize(("name", "body", "fine"), JUDGED.values(), ids=JUDGED.keys())
async def test_a_request_is_one_to_its_schema_as_to_the_gateway(
    name: str, body: JSON, fine: bool, served: Served, client: Client
) -> None:
    assert validator(served.document, name).is_valid(body) is fine
    served.upstream.will(*([Reply.json({"error": {"message": "enough"}}, 418)] if fine else []))
    answer = await client.ask("POST", PATHS[name], json.dumps(body).encode())
    assert answer.status == 400
    assert (answer.error()["message"] == "enough") is fine
    assert not served.upstream.forget()


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CHATS: dict[str, JSON] = {
    "text": {},
    "choices": {"n": 2},
    "thinking": {"reasoning_effort": "high"},
    "a refusal": {"echo": {"refusal": True}},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "a tool": {"tools": [TOOL], "tool_choice": "required"},
    "a function": {"functions": [TOOL["function"]], "function_call": {"name": "f"}},
    "JSON": {"response_format": {"type": "json_object"}},
    "cut": {"max_tokens": 1},
}


@on_the_shared_loop
class TestAnswers:
    """Real ones hold to their schemas."""

    @pytest.mark.parametrize("members", CHATS.values(), ids=CHATS.keys())
    async def test_chat(self, members: JSON, served: Served, client: Client) -> None:
        request = ask("echo", **members)
        whole = await client.chat(request)
        assert whole.status == 200, whole.body
        assert_valid(served.document, "ChatCompletion", whole.json)
        stream = await client.stream({**request, "stream_options": {"include_usage": True}})
        assert stream.done
        assert stream.chunks
        for each in stream.chunks:
            assert_valid(served.document, "ChatCompletionChunk", each)

    async def test_chat_of_a_vendor(self, served: Served, client: Client) -> None:
        """With all that an upstream may say beside text."""
        custom = {"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}
        audio = {"id": "a", "data": "AA==", "expires_at": 1, "transcript": "t"}
        beside = {"reasoning_content": "hm", "annotations": [{"type": "url_citation"}], "vendor": 1.0}
        served.upstream.will(
            Reply.json(completion(None, "tool_calls", tool_calls=[custom], audio=audio, **beside)),
            Reply.sse(
                sse(chunk({"role": "assistant", "content": None, "audio": audio, **beside})),
                sse(chunk({"tool_calls": [{"index": 0, **custom}]})),
                sse(chunk({"tool_calls": [{"index": 0, "custom": {"input": "y"}}]})),
                sse(chunk(finish="tool_calls")),
                sse("[DONE]"),
            ),
        )
        whole = (await client.chat(ask())).json
        assert whole["choices"][0]["message"]["tool_calls"] == [custom]
        assert_valid(served.document, "ChatCompletion", whole)
        stream = await client.stream(ask())
        assert stream.done
        for each in stream.chunks:
            assert_valid(served.document, "ChatCompletionChunk", each)

    async def test_completions(self, served: Served, client: Client) -> None:
        request = {"model": "echo", "prompt": ["a b", "c"], "logprobs": 1, "echo": True}
        answer = await client.ask("POST", "/v1/completions", json.dumps(request).encode())
        assert answer.status == 200, answer.body
        assert_valid(served.document, "TextCompletion", answer.json)
        streamed = {**request, "stream": True, "stream_options": {"include_usage": True}}
        answer = await client.ask("POST", "/v1/completions", json.dumps(streamed).encode())
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert_events_valid(served.document, "TextCompletion", answer.body.decode())

    @pytest.mark.parametrize("form", ["float", "base64"])
    async def test_embeddings(self, form: str, served: Served, client: Client) -> None:
        body = json.dumps({"model": "echo", "input": ["a", "b"], "encoding_format": form}).encode()
        answer = await client.ask("POST", "/v1/embeddings", body)
        assert len(answer.json["data"]) == 2
        assert_valid(served.document, "Embeddings", answer.json)

    async def test_embeddings_in_a_vendors_form(self, served: Served, client: Client) -> None:
        served.upstream.will(Reply.json({"data": [{"index": 0, "embedding": "gP0ABRF/AQI="}]}))
        body = b'{"model":"scripted","input":"a","encoding_format":"base64_int8"}'
        answer = await client.ask("POST", "/v1/embeddings", body)
        assert served.upstream.requests[-1].json["encoding_format"] == "base64_int8"
        assert answer.json["data"][0]["embedding"] == "gP0ABRF/AQI="
        assert_valid(served.document, "Embeddings", answer.json)

    async def test_moderations(self, served: Served, client: Client) -> None:
        result = {"flagged": False, "categories": {"hate": False}, "category_scores": {"hate": 0.1}}
        served.upstream.will(Reply.json({"id": "modr-1", "model": "m", "results": [result]}))
        answer = await client.ask("POST", "/v1/moderations", b'{"input":"a","model":"scripted"}')
        assert answer.json["results"] == [result]
        assert_valid(served.document, "Moderation", answer.json)

    @pytest.mark.parametrize(
        ("path", "name"),
        [
            ("/v1/models", "Models"),
            ("/v1/models/echo", "Model"),
            ("/healthz", "Alive"),
            ("/readyz", "Readiness"),
            ("/openapi.json", "OpenAPI"),
        ],
    )
    async def test_the_others(self, path: str, name: str, served: Served, client: Client) -> None:
        answer = await client.ask("GET", path)
        assert answer.status == 200
        assert_valid(served.document, name, answer.json)

    async def test_errors(self, served: Served, client: Client) -> None:
        for answer in (
            await client.chat({}),
            await client.chat(ask("nobody")),
            await client.chat(ask("echo", echo={"fault": "error", "status": 429, "retry_after": 1})),
            await client.ask("GET", "/v1/nothing"),
        ):
            assert_valid(served.document, "Error", answer.json)


CHECKS = [checks.status_code_conformance, checks.content_type_conformance, checks.response_headers_conformance]
EVENTS = {"/chat/completions": "ChatCompletionChunk", "/completions": "TextCompletion"}


@pytest.fixture(scope="module")
def api(served: Served) -> OpenApiSchema:
    # By itself its client hangs up on long streams.
    patient = schemathesis.Config.from_dict({"max-stream-events": 1_000_000})
    return schemathesis.openapi.from_dict(served.document, config=patient)


@pytest.mark.parametrize("path", [*ENDPOINTS, *ROOT_ENDPOINTS])
@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_nothing_that_is_generated_breaks_it(
    mode: GenerationMode, path: str, api: OpenApiSchema, served: Served
) -> None:
    method = "POST" if "post" in served.document["paths"][path] else "GET"
    known = st.sampled_from(["echo", "echo", "echo", "listed", "nobody"])
    versions = st.sampled_from([""] if path in ROOT_ENDPOINTS else ["", "/v1"])
    statuses: set[int] = set()

    examples = 10 if method == "GET" else 80 if mode is GenerationMode.POSITIVE else 30

    # No shrinking: every request is as good a report as a smaller one, and each costs a call.
    @settings(max_examples=examples, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(
        case=api[path][method].as_strategy(generation_mode=mode), model=known, version=versions, stream=st.booleans()
    )
    def run(case: Case[Any], model: str, version: str, stream: bool) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body["model"] = model  # no generator guesses a name
            case.body.pop("echo", None)  # its options may ask for faults
            if path in EVENTS:
                case.body["stream"] = stream
        response = case.call(base_url=f"http://{served.gateway.address}{version}")
        assert response.status_code != 500, response.text
        if response.headers["content-type"][0].startswith("text/event-stream"):
            case.validate_response(response, checks=CHECKS)
            assert_events_valid(served.document, EVENTS[path], response.text)
        else:
            case.validate_response(response, checks=[*CHECKS, checks.response_schema_conformance])
        statuses.add(response.status_code)

    run()
    assert statuses & ({400, 404} if mode is GenerationMode.NEGATIVE else {200, 404, 501}), statuses

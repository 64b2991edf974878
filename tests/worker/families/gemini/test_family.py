"""The family's face: where requests go, what becomes of parameters, embeddings, and the models there are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import yaml
from support import schemas
from support.gemini import BASE, FOLDER, UPSTREAM, VERTEX, assert_valid, chat, encoded, ignored, upstream
from support.services import ROOT

from trestle.errors import CallError, Reason
from trestle.v1 import embedding_pb2, model_pb2
from worker.families.gemini import FAMILY
from worker.families.gemini.settings import GeminiUpstream
from worker.family import CompletesText, Embeds, ShowsTokens, SplitsEmbeddings, Upstream

Object = dict[str, Any]


class TestRequests:
    @pytest.mark.parametrize("base_url", [BASE, f"{BASE}/v1beta"])
    def test_go_to_the_gemini_api(self, base_url: str) -> None:
        request = FAMILY.encode_chat(chat(), upstream(base_url=base_url))
        assert (request.method, request.url) == ("POST", f"{BASE}/v1beta/models/gemini-2.5-flash:generateContent")
        assert (request.headers["x-goog-api-key"], request.headers["accept"]) == ("secret", "application/json")
        assert "authorization" not in request.headers

    def test_streams(self) -> None:
        request = FAMILY.encode_chat(chat(stream=True), upstream(auth="bearer", headers={"X-Goog-User-Project": "q"}))
        assert request.url == f"{BASE}/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
        assert request.headers["accept"] == "text/event-stream"
        assert request.headers["authorization"] == "Bearer secret"
        assert request.headers["x-goog-user-project"] == "q"

    @pytest.mark.parametrize("auth", ["bearer", "x-goog-api-key"])
    def test_without_a_credential_show_none(self, auth: str) -> None:
        to = Upstream("keyless", upstream(auth=auth).settings)
        assert not {"authorization", "x-goog-api-key"} & FAMILY.encode_chat(chat(), to).headers.keys()

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-2.5-pro", "v1beta/models/gemini-2.5-pro"),
            ("models/gemini-2.5-pro", "v1beta/models/gemini-2.5-pro"),
            ("tunedModels/a", "v1beta/tunedModels/a"),
            ("a?b#c", "v1beta/models/a%3Fb%23c"),
        ],
    )
    def test_name_the_model(self, model: str, path: str) -> None:
        assert FAMILY.encode_chat(chat(model), UPSTREAM).url == f"{BASE}/{path}:generateContent"

    @pytest.mark.parametrize(
        ("model", "path"),
        [
            ("gemini-2.5-pro", "publishers/google/models/gemini-2.5-pro"),
            ("google/gemini-2.5-pro", "publishers/google/models/gemini-2.5-pro"),
            ("publishers/google/models/x@1", "publishers/google/models/x@1"),
            ("endpoints/123", "endpoints/123"),
        ],
    )
    def test_on_vertex(self, model: str, path: str) -> None:
        to = upstream(base_url="https://us-central1-aiplatform.googleapis.com", project="p", location="us-central1")
        url = FAMILY.encode_chat(chat(model), to).url
        root = "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p/locations/us-central1"
        assert url == f"{root}/{path}:generateContent"

    @pytest.mark.parametrize("model", ["../files", "a/../b", "a//b", "."])
    def test_names_lead_nowhere_else(self, model: str) -> None:
        with pytest.raises(CallError) as caught:
            FAMILY.encode_chat(chat(model), UPSTREAM)
        assert (caught.value.reason, caught.value.param) == (Reason.MODEL_NOT_FOUND, "model")


class TestSettings:
    def test_an_unknown_key_is_a_fault(self) -> None:
        with pytest.raises(msgspec.ValidationError, match="projct"):
            msgspec.convert({"base_url": BASE, "projct": "p"}, GeminiUpstream)

    def test_the_documented_example_is_one(self) -> None:
        page = (ROOT / "docs" / "families" / "gemini.md").read_text(encoding="utf-8")
        example = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["worker"]
        found = msgspec.convert(example["gemini"]["upstreams"], dict[str, GeminiUpstream])
        assert [settings.vertex for settings in found.values()] == [False, True, False]
        assert found["vertex"].account is not None
        assert found["proxy"].traits_for("in-house-1").levels == ("low", "high")

    def test_tokens_are_for_accounts(self) -> None:
        assert FAMILY.token_account(UPSTREAM) is None
        account = FAMILY.token_account(upstream(service_account_file="key.json"))
        assert account is not None
        assert (account.file, account.variable) == ("key.json", "")

    def test_the_longest_beginning_counts(self) -> None:
        settings = upstream(traits={"x": {"seals": True}, "x-1": {"seals": False}}).settings
        assert (settings.traits_for("x-2").seals, settings.traits_for("x-1").seals) == (True, False)

    def test_what_the_family_offers(self) -> None:
        assert isinstance(FAMILY, Embeds)
        assert isinstance(FAMILY, ShowsTokens)
        assert isinstance(FAMILY, SplitsEmbeddings)
        assert not isinstance(FAMILY, CompletesText)


class TestParams:
    def test_the_table_names_every_member_of_the_schema(self) -> None:
        assert set(FAMILY.params) == schemas.members_of(schemas.REQUEST)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("logit_bias", {"1": 5}),
            ("metadata", {"a": "b"}),
            ("moderation", {"model": "m"}),
            ("prediction", {"type": "content", "content": "A"}),
            ("prompt_cache_key", "k"),
            ("prompt_cache_options", {"mode": "implicit"}),
            ("prompt_cache_retention", "24h"),
            ("safety_identifier", "s"),
            ("store", True),
            ("user", "u"),
            ("verbosity", "low"),
            ("unheard_of", 1),
        ],
    )
    def test_what_is_ignored_is_named(self, name: str, value: Any) -> None:
        request = chat(**{name: value})
        assert FAMILY.params.get(name, "ignored") == "ignored"
        assert ignored(request) == [name]
        assert encoded(request) == encoded(chat())

    def test_what_asks_for_nothing_is_not_ignored(self) -> None:
        options: Object = {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}}
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "auto"}}
        messages = [{"role": "user", "content": [image]}]
        assert ignored(chat(logprobs=False, store=False, metadata=None, messages=messages, **options)) == []

    def test_what_is_further_down_is_named_by_its_path(self) -> None:
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}, "odd": 1}
        called = {"id": "1", "type": "function", "function": {"name": "f", "arguments": ""}, "strange": 1}
        request = chat(
            messages=[
                {"role": "user", "name": "Ann", "content": [image], "cache_control": {"type": "ephemeral"}},
                {"role": "assistant", "content": "A", "tool_calls": [called], "annotations": []},
            ],
            tools=[{"type": "function", "function": {"name": "f", "extra": 1}, "cache_control": {}}],
            stream=True,
            stream_options={"include_obfuscation": True},
        )
        assert sorted(ignored(request)) == [
            "messages[].cache_control",
            "messages[].content[].image_url.detail",
            "messages[].content[].odd",
            "messages[].name",
            "messages[].tool_calls[].strange",
            "stream_options.include_obfuscation",
            "tools[].cache_control",
            "tools[].function.extra",
        ]


class TestModels:
    def test_the_list_is_asked_for(self) -> None:
        request = FAMILY.encode_list_models(UPSTREAM)
        assert (request.method, request.url) == ("GET", f"{BASE}/v1beta/models?pageSize=1000")
        assert FAMILY.encode_list_models(upstream(**VERTEX)).url == (
            "https://aiplatform.googleapis.com/v1beta1/publishers/google/models?pageSize=200"
        )

    def test_those_that_chat_or_embed(self) -> None:
        def entry(name: str, *methods: str) -> Object:
            return {"name": name, "supportedGenerationMethods": list(methods), "inputTokenLimit": 100, "version": "1"}

        listed = [
            {**entry("models/gemini-2.5-flash", "generateContent", "countTokens"), "outputTokenLimit": 50},
            entry("models/gemma-3-27b-it", "generateContent"),
            entry("models/gemini-embedding-001", "embedContent"),
            entry("models/imagen-4.0-generate-001", "predict"),
            entry("tunedModels/a", "generateContent"),
        ]
        found = list(FAMILY.decode_list_models(json.dumps({"models": listed}).encode()))
        assert [model.id for model in found] == [
            "gemini-2.5-flash",
            "gemma-3-27b-it",
            "gemini-embedding-001",
            "tunedModels/a",
        ]
        assert (found[0].owned_by, found[0].context_tokens, found[0].max_output_tokens) == ("google", 100, 50)
        assert model_pb2.CAPABILITY_REASONING in found[0].capabilities
        assert list(found[1].capabilities) == [model_pb2.CAPABILITY_CHAT]
        assert list(found[2].capabilities) == [model_pb2.CAPABILITY_EMBED]

    def test_of_vertex(self) -> None:
        names = ("gemini-3-pro-preview", "gemini-embedding-001", "imagen-4.0")
        listed = {"publisherModels": [{"name": f"publishers/google/models/{name}"} for name in names]}
        found = list(FAMILY.decode_list_models(json.dumps(listed).encode()))
        assert [model.id for model in found] == ["gemini-3-pro-preview", "gemini-embedding-001"]

    @pytest.mark.parametrize("body", [b"", b"[]", b'{"models": [{}]}', b"\xff"])
    def test_what_is_no_list(self, body: bytes) -> None:
        with pytest.raises(CallError) as caught:
            FAMILY.decode_list_models(body)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL


def embed(*texts: str, model: str = "gemini-embedding-001", **fields: Any) -> embedding_pb2.EmbedRequest:
    inputs = [embedding_pb2.EmbedInput(text=text) for text in texts]
    return embedding_pb2.EmbedRequest(model=model, inputs=inputs, **fields)


def embedding_of(request: embedding_pb2.EmbedRequest, **settings: Any) -> tuple[str, Object]:
    found = FAMILY.encode_embed(request, upstream(**settings))
    return found.url.rpartition("/")[2], json.loads(found.body)


class TestEmbeddings:
    def test_all_at_once(self) -> None:
        extra = json.dumps({"task_type": "RETRIEVAL_QUERY", "unheard_of": 1}).encode()
        assert embedding_of(embed("a", "b", dimensions=8, extra_json=extra)) == (
            "gemini-embedding-001:batchEmbedContents",
            {
                "requests": [
                    {
                        "model": "models/gemini-embedding-001",
                        "content": {"parts": [{"text": text}]},
                        "taskType": "RETRIEVAL_QUERY",
                        "outputDimensionality": 8,
                    }
                    for text in "ab"
                ]
            },
        )

    @pytest.mark.parametrize(("inputs", "sizes"), [(1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
    def test_a_hundred_at_once(self, inputs: int, sizes: list[int]) -> None:
        request = embed(*map(str, range(inputs)), dimensions=8, user="u", extra_json=b'{"taskType":"X"}')
        parts = FAMILY.split_embed(request, UPSTREAM)
        assert [len(part.inputs) for part in parts] == sizes
        assert [each for part in parts for each in part.inputs] == list(request.inputs)
        for part in parts:
            del part.inputs[:]
            assert part == embed(dimensions=8, user="u", extra_json=b'{"taskType":"X"}')

    def test_on_vertex_they_stay_together(self) -> None:
        request = embed(*map(str, range(250)))
        assert FAMILY.split_embed(request, upstream(**VERTEX)) == [request]

    def test_an_input_without_a_form_is_named_by_its_place_among_all(self) -> None:
        request = embed(*map(str, range(250)))
        request.inputs[150].tokens.ids.append(1)
        with pytest.raises(CallError) as caught:
            FAMILY.split_embed(request, UPSTREAM)
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "input[150]")

    def test_what_is_asked_for_and_has_no_place_is_named(self) -> None:
        request = embed("a", user="u", extra_json=b'{"task_type":"X","title":"T","autoTruncate":true,"wings":2}')
        assert FAMILY.ignored_embed_params(request, UPSTREAM) == ["user", "wings"]
        assert FAMILY.ignored_embed_params(embed("a"), UPSTREAM) == []
        for form, names in (("float", []), ("base64", []), ("base64_int8", ["encoding_format"])):
            assert FAMILY.ignored_embed_params(embed("a", encoding_format=form), UPSTREAM) == names

    def test_on_vertex_without_anything_beside_the_text(self) -> None:
        for model, expected in (
            ("text-embedding-005", {"instances": [{"content": "a"}]}),
            ("gemini-embedding-2", {"content": {"parts": [{"text": "a"}]}}),
        ):
            assert embedding_of(embed("a", model=model), **VERTEX)[1] == expected

    def test_an_error_with_a_good_status(self) -> None:
        body = b'{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Slow."},"embeddings":7}'
        with pytest.raises(CallError) as caught:
            FAMILY.decode_embed(body, embed("a"))
        assert caught.value.reason is Reason.UPSTREAM_RATE_LIMITED

    def test_older_models_on_vertex(self) -> None:
        extra = json.dumps({"taskType": "CLUSTERING", "autoTruncate": False}).encode()
        assert embedding_of(embed("a", "b", dimensions=8, extra_json=extra), **VERTEX) == (
            "gemini-embedding-001:predict",
            {
                "instances": [{"content": text, "task_type": "CLUSTERING"} for text in "ab"],
                "parameters": {"outputDimensionality": 8, "autoTruncate": False},
            },
        )

    def test_newer_models_on_vertex(self) -> None:
        url, body = embedding_of(embed("a", model="gemini-embedding-2", dimensions=8), **VERTEX)
        assert url == "gemini-embedding-2:embedContent"
        assert body == {"content": {"parts": [{"text": "a"}]}, "embedContentConfig": {"outputDimensionality": 8}}
        with pytest.raises(CallError) as caught:
            embedding_of(embed("a", "b", model="gemini-embedding-2"), **VERTEX)
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "input")

    @pytest.mark.parametrize(
        "odd",
        [
            embedding_pb2.EmbedInput(tokens=embedding_pb2.TokenIds(ids=[1])),
            embedding_pb2.EmbedInput(other_json=b'{"image": "x"}'),
        ],
    )
    def test_inputs_without_a_form_are_refused(self, odd: embedding_pb2.EmbedInput) -> None:
        with pytest.raises(CallError) as caught:
            embedding_of(embedding_pb2.EmbedRequest(model="m", inputs=[odd]))
        assert (caught.value.reason, caught.value.param) == (Reason.UNSUPPORTED, "input[0]")

    @pytest.mark.parametrize(
        ("answer", "tokens", "estimated"),
        [
            ({"embeddings": [{"values": [0.5, 1.0]}], "usageMetadata": {"promptTokenCount": 3}}, 3, False),
            ({"embedding": {"values": [0.5, 1.0], "new": 1}}, 2, True),
            (
                {"predictions": [{"embeddings": {"values": [0.5, 1.0], "statistics": {"token_count": 4}}}]},
                4,
                False,
            ),
        ],
    )
    def test_answers(self, answer: Object, tokens: int, estimated: bool) -> None:
        response = FAMILY.decode_embed(json.dumps(answer).encode(), embed("Hello."))
        assert [json.loads(each.values_json) for each in response.embeddings] == [[0.5, 1.0]]
        assert (response.usage.input_tokens, response.usage.estimated) == (tokens, estimated)
        assert response.model == "gemini-embedding-001"
        if FOLDER.is_dir() and "embeddings" in answer:
            assert_valid(answer, "embed_content.response")

    @pytest.mark.parametrize("body", [b"", b"{}", b'{"embeddings": []}', b'{"embeddings": [{}]}', b'{"embeddings": 1}'])
    def test_what_is_no_answer(self, body: bytes) -> None:
        with pytest.raises(CallError) as caught:
            FAMILY.decode_embed(body, embed("a"))
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL

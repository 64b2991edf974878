"""Embeddings, moderations and text completions as OpenAI-like upstreams take and answer them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, moderation_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.family import Upstream

JSON = dict[str, Any]
UPSTREAM = Upstream("vendor", OpenAIUpstream(base_url="http://127.0.0.1/v1"))


def asked(*inputs: Any, **fields: Any) -> embedding_pb2.EmbedRequest:
    request = embedding_pb2.EmbedRequest(model="m", **fields)
    for each in inputs:
        if isinstance(each, str):
            request.inputs.add(text=each)
        elif isinstance(each, bytes):
            request.inputs.add(other_json=each)
        else:
            request.inputs.add().tokens.ids.extend(each)
    return request


def body_of(request: embedding_pb2.EmbedRequest) -> JSON:
    body = FAMILY.encode_embed(request, UPSTREAM).body
    told: JSON = json.loads(body)
    return told


@pytest.mark.parametrize(
    ("inputs", "single", "expected"),
    [
        (["a"], True, "a"),
        (["a"], False, ["a"]),
        (["a", [1, 2], b'{"image":1.0}'], False, ["a", [1, 2], {"image": 1.0}]),
        ([[1, 2]], True, [1, 2]),
    ],
)
def test_inputs_keep_their_form(inputs: list[Any], single: bool, expected: Any) -> None:
    assert body_of(asked(*inputs, single=single)) == {"model": "m", "input": expected}


def test_what_is_asked_for_beside_them() -> None:
    request = asked("a", dimensions=8, encoding_format="base64", user="u", extra_json=b'{"model":"forged","x":1}')
    assert body_of(request) == {
        "model": "m",
        "input": ["a"],
        "dimensions": 8,
        "encoding_format": "base64",
        "user": "u",
        "x": 1,
    }
    assert FAMILY.ignored_embed_params(request, UPSTREAM) == [], "the upstream is told all of it"


def test_an_input_that_holds_nothing_is_named() -> None:
    request = asked("a")
    request.inputs.add()
    with pytest.raises(CallError) as raised:
        body_of(request)
    assert (raised.value.reason, raised.value.param) == (Reason.INVALID_REQUEST, "input[1]")


def decoded(data: list[JSON], *inputs: Any, form: str = "", **members: Any) -> embedding_pb2.EmbedResponse:
    request = asked(*(inputs or ["a"]), encoding_format=form)
    return FAMILY.decode_embed(json.dumps({"data": data, **members}).encode(), request)


def test_vectors_stand_in_the_order_of_the_inputs() -> None:
    entries = [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1], "x": 1}]
    found = decoded(entries, "a", "b", model="real", usage={"prompt_tokens": 3, "total_tokens": 3}, id="e")
    assert [each.values_json for each in found.embeddings] == [b"[1]", b"[2]"]
    assert [each.extra_json for each in found.embeddings] == [b'{"x":1}', b""]
    assert (found.model, found.usage.input_tokens, found.usage.estimated) == ("real", 3, False)
    assert found.extra_json == b'{"id":"e"}'


def test_entries_without_an_index_come_in_order() -> None:
    for index in ({}, {"index": None}, {"index": 0}):  # or with one for all, which tells no more
        found = decoded([{"embedding": [1], **index}, {"embedding": [2], **index}], "a", "b")
        assert [each.values_json for each in found.embeddings] == [b"[1]", b"[2]"]


def test_a_total_alone_is_the_inputs() -> None:
    """Voyage's usage."""
    found = decoded([{"embedding": [1]}], "a", usage={"total_tokens": 7})
    assert found.usage == chat_pb2.Usage(input_tokens=7)


ONE: JSON = {"embedding": base64.b64encode(b"\0\0\x80?").decode()}


def test_vectors_as_base64() -> None:
    (found,) = decoded([ONE], form="base64").embeddings
    assert found == embedding_pb2.Embedding(float32_le=b"\0\0\x80?")
    request = asked("a", extra_json=b'{"encoding_format":"base64"}')
    assert body_of(request)["encoding_format"] == "base64"
    (found,) = FAMILY.decode_embed(json.dumps({"data": [ONE]}).encode(), request).embeddings
    assert found == embedding_pb2.Embedding(float32_le=b"\0\0\x80?"), "asked for as a member that nothing names"


@pytest.mark.parametrize("form", ["", "float", "base64_int8", "base64_binary"])
def test_a_string_is_numbers_of_32_bits_only_where_base64_was_asked_for(form: str) -> None:
    """Perplexity's vectors are base64 of int8, also where nobody said a form."""
    (found,) = decoded([ONE], form=form).embeddings
    assert found == embedding_pb2.Embedding(other_json=b'"AACAPw=="')
    (found,) = decoded([{"embedding": "not base64!"}], form=form).embeddings
    assert found == embedding_pb2.Embedding(other_json=b'"not base64!"')
    (found,) = decoded([{"embedding": [1]}], form=form).embeddings
    assert found == embedding_pb2.Embedding(values_json=b"[1]")


def test_bytes_that_cannot_be_numbers_of_32_bits_are_none() -> None:
    (found,) = decoded([{"embedding": "gP0ABRF/"}], form="base64").embeddings
    assert found == embedding_pb2.Embedding(other_json=b'"gP0ABRF/"')


@pytest.mark.parametrize("form", ["", "base64"])
def test_vectors_of_several_types_at_once_go_on_as_they_came(form: str) -> None:
    """Jina's, where `embedding_type` is a list."""
    (found,) = decoded([{"embedding": {"float": [1.0], "ubinary": [7]}}], form=form).embeddings
    assert found == embedding_pb2.Embedding(other_json=b'{"float": [1.0], "ubinary": [7]}')


def test_vectors_under_another_name_are_kept() -> None:
    """Jina's `return_multivector`."""
    (found,) = decoded([{"index": 0, "embeddings": [[1.0], [2.0]]}]).embeddings
    assert found == embedding_pb2.Embedding(extra_json=b'{"embeddings":[[1.0], [2.0]]}')


def test_a_string_that_is_no_base64_where_it_was_asked_for() -> None:
    with pytest.raises(CallError) as raised:
        decoded([{"embedding": "not base64!"}], form="base64")
    assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


def test_usage_that_nobody_told_is_estimated() -> None:
    found = decoded([{"embedding": [1]}] * 2, "five!", [7, 8, 9])
    assert found.usage == chat_pb2.Usage(input_tokens=2 + 3, estimated=True)
    assert found.model == "m"


@pytest.mark.parametrize(
    "body",
    [
        b"no",
        b'{"data":[{"embedding":[1]}]}\xff',
        b"[" * 100_000,
        b'{"data":[]}',
        b'{"data":[{"embedding":[1]},{"embedding":[2]}]}',
        b'{"data":[{"embedding":[1],"index":1}]}',
        b'{"data":[{"index":0}]}',
        b'{"data":[{"index":0,"x":[1]}]}',
        b'{"data":[{"index":0,"embeddings":7}]}',
        b'{"data":[{"embedding":null,"x":1}]}',
        b'{"data":[{"embedding":"\\ud800"}]}',
        b'{"data":[{"embedding":7}]}',
    ],
)
def test_an_answer_that_is_none(body: bytes) -> None:
    with pytest.raises(CallError) as raised:
        FAMILY.decode_embed(body, asked("a"))
    assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


def test_an_error_with_a_good_status() -> None:
    body = b'{"data":[],"error":{"message":"Too long.","code":"context_length_exceeded"}}'
    with pytest.raises(CallError) as raised:
        FAMILY.decode_embed(body, asked("a"))
    assert (raised.value.reason, raised.value.message) == (Reason.CONTEXT_LENGTH_EXCEEDED, "Too long.")


def test_no_error_is_none() -> None:
    assert len(decoded([{"embedding": [1]}], error=None).embeddings) == 1


class TestModerations:
    def test_what_is_asked(self) -> None:
        request = moderation_pb2.ModerateRequest(model="m", input_json=b'["a", "b"]', extra_json=b'{"x":1.0}')
        sent = FAMILY.encode_moderation(request, UPSTREAM)
        assert sent.url == "http://127.0.0.1/v1/moderations"
        assert b'["a", "b"]' in sent.body
        assert json.loads(sent.body) == {"input": ["a", "b"], "model": "m", "x": 1.0}
        nameless = FAMILY.encode_moderation(moderation_pb2.ModerateRequest(input_json=b'"a"'), UPSTREAM)
        assert json.loads(nameless.body) == {"input": "a"}

    def test_what_is_answered(self) -> None:
        found = FAMILY.decode_moderation(b'{"id":"i","model":"real","results":[ {"flagged":true} ],"x":1.0}')
        assert found == moderation_pb2.ModerateResponse(
            id="i", model="real", results_json=b'[ {"flagged":true} ]', extra_json=b'{"x":1.0}'
        )
        assert FAMILY.decode_moderation(b'{"results":[]}') == moderation_pb2.ModerateResponse(results_json=b"[]")

    @pytest.mark.parametrize("body", [b"{}", b'{"results":{}}', b'{"results":null}', b"no"])
    def test_an_answer_that_is_none(self, body: bytes) -> None:
        with pytest.raises(CallError) as raised:
            FAMILY.decode_moderation(body)
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL


class TestTextCompletions:
    def test_what_is_asked(self) -> None:
        request = completion_pb2.CompleteRequest(
            model="m",
            single=True,
            suffix="",
            echo=False,
            best_of=3,
            logprobs=0,
            user="u",
            stream=True,
            sampling=chat_pb2.Sampling(max_tokens=5),
            extra_json=b'{"x":1.0}',
        )
        request.prompts.add(text="a")
        sent = FAMILY.encode_completion(request, UPSTREAM)
        assert (sent.url, sent.headers["accept"]) == ("http://127.0.0.1/v1/completions", "text/event-stream")
        assert json.loads(sent.body) == {
            "model": "m",
            "prompt": "a",
            "suffix": "",
            "echo": False,
            "best_of": 3,
            "logprobs": 0,
            "max_tokens": 5,
            "user": "u",
            "stream": True,
            "stream_options": {"include_usage": True},
            "x": 1.0,
        }

    def test_without_a_prompt_and_with_several(self) -> None:
        request = completion_pb2.CompleteRequest(model="m")
        sent = FAMILY.encode_completion(request, UPSTREAM)
        assert (json.loads(sent.body), sent.headers["accept"]) == ({"model": "m"}, "application/json")
        request.prompts.add(text="a")
        request.prompts.add().tokens.ids.extend([1, 2])
        assert json.loads(FAMILY.encode_completion(request, UPSTREAM).body)["prompt"] == ["a", [1, 2]]

    def feed(self, *events: Any, prompts: int = 1) -> list[completion_pb2.CompletionChunk]:
        request = completion_pb2.CompleteRequest(model="m")
        for _ in range(prompts):
            request.prompts.add(text="five!")
        decoder, response = FAMILY.completion_decoder(request, UPSTREAM), completion_pb2.CompleteResponse()
        for event in events:
            data = event if isinstance(event, str) else json.dumps(event)
            decoder.feed(("", data.encode()), response.chunks)
        assert decoder.done
        return list(response.chunks)

    def test_a_stream(self) -> None:
        head = {"id": "c", "created": 7, "model": "real"}
        chunks = self.feed(
            {**head, "choices": [{"index": 0, "text": "Hé", "logprobs": {"tokens": ["H"]}, "x": 1}]},
            {**head, "choices": [{"index": 1, "text": "b", "logprobs": None}]},
            {**head, "choices": [{"index": 0, "text": "", "finish_reason": "length"}]},
            {**head, "choices": [{"index": 1, "text": "", "finish_reason": "stop"}]},
            "[DONE]",
            prompts=2,
        )
        started, *said = chunks
        assert (started.started.id, started.started.model, started.started.created) == ("c", "real", 7)
        texts = [(each.choice, each.text, each.logprobs_json, each.choice_extra_json) for each in said[:2]]
        assert texts == [(0, "Hé", b'{"tokens": ["H"]}', b'{"x":1}'), (1, "b", b"", b"")]
        finishes = {each.choice: each.finish.reason for each in said if each.WhichOneof("event") == "finish"}
        assert finishes == {0: chat_pb2.FINISH_REASON_LENGTH, 1: chat_pb2.FINISH_REASON_STOP}
        assert said[-1].usage == chat_pb2.Usage(input_tokens=3, output_tokens=1, estimated=True)


@pytest.mark.parametrize("deployments", [False, True])
def test_only_models_with_a_name_have_a_path_of_their_own(deployments: bool) -> None:
    upstream = Upstream("azure", OpenAIUpstream(base_url="http://127.0.0.1", deployments=deployments))
    path = "/deployments/m/embeddings" if deployments else "/embeddings"
    assert FAMILY.encode_embed(asked("a"), upstream).url == "http://127.0.0.1" + path
    listed = FAMILY.encode_list_models(upstream)
    assert (listed.method, listed.url) == ("GET", "http://127.0.0.1/models")


def test_a_list_of_models() -> None:
    body = b'{"data":[{"id":"a","owned_by":"us","created":7},{"id":""},{"id":"b","created":1.5}]}'
    assert [(each.id, each.owned_by, each.created) for each in FAMILY.decode_list_models(body)] == [
        ("a", "us", 7),
        ("b", "", 1),
    ]
    assert [each.id for each in FAMILY.decode_list_models(b' [{"id":"a"}]')] == ["a"]
    assert not list(FAMILY.decode_list_models(b'{"object":"list","data":null}'))  # Ollama's without a model
    for broken in (b"no", b'{"data":1}', b"[" * 100_000):
        with pytest.raises(CallError) as raised:
            FAMILY.decode_list_models(broken)
        assert raised.value.reason is Reason.UPSTREAM_PROTOCOL

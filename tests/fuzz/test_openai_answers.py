"""What an OpenAI-like upstream answers beside chat: text completions, embeddings, moderations, its list of models.
Whatever comes, the decoder makes the contract's answer of it, and the gateway JSON of that, or a `CallError`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.spoiled import assert_events, changed, spoiled
from support.upstream import USAGE, sse

from gateway.openai.embeddings import decode_embed, encode_embeddings
from gateway.openai.moderations import decode_moderation, encode_moderation
from gateway.openai.text import TextFold, TextStreamEncoder
from trestle.errors import CallError
from trestle.v1 import completion_pb2, embedding_pb2
from worker.families.openai import FAMILY
from worker.families.openai.family import OpenAIUpstream
from worker.family import Upstream
from worker.sse import SseParser

UPSTREAM = Upstream("strange", OpenAIUpstream(base_url="http://127.0.0.1"))
SETTINGS = settings(max_examples=300)
LOGPROBS = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}], "text_offset": [0]}
TEXT: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "system_fingerprint": "f",
    "choices": [{"index": 0, "text": "Größe", "logprobs": LOGPROBS, "finish_reason": "stop", "x": 1}],
    "usage": USAGE,
    "x": {"y": 1.0},
}
EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "model": "m",
    "data": [{"object": "embedding", "index": i, "embedding": [0.5, -1, 1e-9]} for i in (1, 0)],
    "usage": USAGE,
    "x": 1,
}
MODERATION: dict[str, Any] = {
    "id": "modr-1",
    "model": "m",
    "results": [
        {
            "flagged": True,
            "categories": {"hate": True, "x": False},
            "category_scores": {"hate": 0.9, "x": 0},
            "category_applied_input_types": {"hate": ["text"]},
        }
    ],
}
MODELS: dict[str, Any] = {
    "object": "list",
    "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "o", "context_length": 1, "x": {"y": 1}}],
}


def assert_finished_or_failed(feed: Callable[[Any, Any], None]) -> None:
    """It ends with a finish and usage, or with an error and neither of them looks like the other."""
    request = completion_pb2.CompleteRequest(model="m", prompts=[completion_pb2.Prompt(text="Once")], stream=True)
    response = completion_pb2.CompleteResponse()
    failure = None
    try:
        feed(FAMILY.completion_decoder(request, UPSTREAM), response.chunks)
    except CallError as error:
        failure = error
    finished = any(chunk.HasField("finish") for chunk in response.chunks)
    assert finished == (failure is None)
    assert failure is not None or any(chunk.HasField("usage") for chunk in response.chunks)
    for chunk in response.chunks:
        for field, value in chunk.ListFields():
            if field.name.endswith("_json"):
                value.decode("utf-8")
    if failure is None:
        assert_shown(response.chunks)


def assert_shown(chunks: Sequence[completion_pb2.CompletionChunk]) -> None:
    """The gateway makes JSON of these in either form."""
    stream = TextStreamEncoder(include_usage=True)
    assert_events(stream.feed(chunks) + stream.close(), "text_completion")
    answer = TextFold()
    answer.feed(chunks)
    assert json.loads(answer.encode())["object"] == "text_completion"


@SETTINGS
@given(first=spoiled(TEXT), second=spoiled(TEXT))
def test_text_events(first: bytes, second: bytes) -> None:
    def feed(decoder: Any, out: Any) -> None:
        for data in (first, second, b"[DONE]"):
            decoder.feed(("", data), out)

    assert_finished_or_failed(feed)


@SETTINGS
@given(wire=changed(sse(TEXT, TEXT, "[DONE]")), clean=st.booleans())
def test_a_text_stream_with_bytes_changed(wire: bytes, clean: bool) -> None:
    def feed(decoder: Any, out: Any) -> None:
        for event in SseParser(10_000).feed(wire):
            decoder.feed(event, out)
            if decoder.done:
                return
        decoder.close(clean, out)

    assert_finished_or_failed(feed)


@SETTINGS
@given(body=spoiled(TEXT))
def test_a_text_in_one_piece(body: bytes) -> None:
    assert_finished_or_failed(lambda decoder, out: decoder.feed_whole(body, out))


@SETTINGS
@given(body=spoiled(EMBEDDINGS) | changed(json.dumps(EMBEDDINGS).encode()))
def test_embeddings(body: bytes) -> None:
    inputs = [embedding_pb2.EmbedInput(text=text) for text in ("a", "b")]
    request = embedding_pb2.EmbedRequest(model="m", inputs=inputs)
    with suppress(CallError):
        response = FAMILY.decode_embed(body, request)
        assert len(response.embeddings) == 2
        assert response.HasField("usage")
        assert json.loads(response.extra_json or b"{}") is not None
        for form in ("float", "base64"):
            ask = decode_embed(json.dumps({"model": "m", "input": ["a", "b"], "encoding_format": form}).encode())
            assert len(json.loads(encode_embeddings(response, ask))["data"]) == 2


@SETTINGS
@given(body=spoiled(MODERATION) | changed(json.dumps(MODERATION).encode()))
def test_moderations(body: bytes) -> None:
    with suppress(CallError):
        response = FAMILY.decode_moderation(body)
        assert isinstance(json.loads(response.results_json), list)
        assert json.loads(response.extra_json or b"{}") is not None
        assert json.loads(encode_moderation(response, decode_moderation(b'{"input":"a"}')))["results"] is not None


@SETTINGS
@given(body=spoiled(MODELS) | changed(json.dumps(MODELS).encode()))
def test_models(body: bytes) -> None:
    with suppress(CallError):
        assert all(model.id for model in FAMILY.decode_list_models(body))


def test_a_model_without_a_name_is_none() -> None:
    assert [model.id for model in FAMILY.decode_list_models(b'{"data":[{"id":""},{"id":"a"}]}')] == ["a"]

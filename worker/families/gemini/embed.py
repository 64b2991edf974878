"""Embeddings, there and back. Pure.

The Gemini API takes a hundred inputs at once (batchEmbedContents). Vertex AI has two other ways: `predict` of its
older models, and embedContent, which takes one input, of the newer ones.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, join, members
from trestle.tokens import tokens_in
from trestle.v1 import chat_pb2, embedding_pb2
from worker.families.gemini import wire
from worker.families.gemini.content import Object, refused
from worker.families.gemini.errors import error_from
from worker.families.gemini.plan import camel
from worker.families.gemini.settings import GeminiUpstream
from worker.families.gemini.usage import count
from worker.request_json import VECTOR_FORMS, object_of

# Members of Gemini's own that a client may send beside OpenAI's; the first two belong to each input.
_OF_INPUT: Final = frozenset({"taskType", "title"})
_OF_ALL: Final = frozenset({"autoTruncate", "documentOcr", "audioTrackExtraction"})

_AT_ONCE: Final = 100


def ignored_params(request: embedding_pb2.EmbedRequest) -> list[str]:
    """Names of what is asked for and has no place in Gemini's request."""
    found = ["user"] if request.user else []
    if request.encoding_format not in VECTOR_FORMS:
        found.append("encoding_format")
    given = object_of(request.extra_json, "extra_json")
    return found + [name for name in given if camel(name) not in _OF_INPUT | _OF_ALL]


def split_embed(request: embedding_pb2.EmbedRequest, settings: GeminiUpstream) -> list[embedding_pb2.EmbedRequest]:
    """The requests of as many inputs as the Gemini API takes at once. Raises `CallError` (UNSUPPORTED), before any of
    them is sent, for an input that has no form there."""
    if settings.vertex or len(request.inputs) <= _AT_ONCE:
        return [request]
    for i, each in enumerate(request.inputs):
        _content(each, f"input[{i}]")
    common = embedding_pb2.EmbedRequest()
    common.CopyFrom(request)
    del common.inputs[:]
    parts = []
    for at in range(0, len(request.inputs), _AT_ONCE):
        part = embedding_pb2.EmbedRequest()
        part.CopyFrom(common)
        part.inputs.extend(request.inputs[at : at + _AT_ONCE])
        parts.append(part)
    return parts


def encode_embed(request: embedding_pb2.EmbedRequest, settings: GeminiUpstream) -> tuple[str, bytes]:
    """The URL and the body. Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming what cannot be carried."""
    extra = {camel(name): value for name, value in object_of(request.extra_json, "extra_json").items()}
    own: Object = {name: extra[name] for name in _OF_INPUT & extra.keys()}
    common: Object = {name: extra[name] for name in _OF_ALL & extra.keys()}
    dimensions: Object = {"outputDimensionality": request.dimensions} if request.HasField("dimensions") else {}
    if not settings.vertex:
        model = settings.resource(request.model)
        requests = [
            {"model": model, "content": _content(each, f"input[{i}]"), **own, **common, **dimensions}
            for i, each in enumerate(request.inputs)
        ]
        return settings.url(request.model, "batchEmbedContents"), msgspec.json.encode({"requests": requests})
    if _embeds_content(request.model):
        if len(request.inputs) > 1:
            raise refused("more than one input for this model on Vertex AI", "input")
        body: Object = {"content": _content(request.inputs[0], "input[0]")}
        config = own | common | dimensions
        if config:
            body["embedContentConfig"] = config
        return settings.url(request.model, "embedContent"), msgspec.json.encode(body)
    if "taskType" in own:
        own["task_type"] = own.pop("taskType")
    body = {"instances": [{"content": _text(each, f"input[{i}]"), **own} for i, each in enumerate(request.inputs)]}
    parameters = common | dimensions
    if parameters:
        body["parameters"] = parameters
    return settings.url(request.model, "predict"), msgspec.json.encode(body)


def _embeds_content(model: str) -> bool:
    """Whether the model answers to embedContent on Vertex AI; the older ones answer to predict."""
    name = model.rpartition("/")[2]
    return "gemini" in name and not name.startswith("gemini-embedding-001")


def _text(each: embedding_pb2.EmbedInput, where: str) -> str:
    if not each.HasField("text"):
        raise refused("inputs other than texts", where)
    return each.text


def _content(each: embedding_pb2.EmbedInput, where: str) -> Any:
    """A text, or a content of Gemini's own, such as `{"parts": [{"inlineData": ...}]}`."""
    if each.HasField("other_json") and "parts" in object_of(each.other_json, where):
        return Raw(each.other_json)
    return {"parts": [{"text": _text(each, where)}]}


def decode_embed(body: bytes, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
    """The vectors in the order of the inputs, as they came. Raises `CallError` (UPSTREAM_PROTOCOL)."""
    try:
        found = wire.EMBEDDINGS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        if b'"error"' in body[:64]:
            raise error_from(body, None, "") from None
        raise _unreadable("an answer that cannot be read") from None
    if found.predictions is not None:
        vectors = [each.embeddings for each in found.predictions]
    else:
        vectors = [found.embedding] if found.embedding is not None else found.embeddings or []
    if len(vectors) != len(request.inputs):
        raise _unreadable("not one embedding for each input")
    response = embedding_pb2.EmbedResponse(model=request.model)
    for vector in vectors:
        if bytes(vector.values)[:1] != b"[":
            raise _unreadable("an embedding without values")
        out = response.embeddings.add(values_json=bytes(vector.values))
        if vector.extra is not NOTHING:
            out.extra_json = join(members(vector.extra))
    response.usage.CopyFrom(_usage(found, vectors, request))
    return response


def _usage(found: wire.Embeddings, vectors: list[wire.Vector], request: embedding_pb2.EmbedRequest) -> chat_pb2.Usage:
    told = found.usage_metadata.prompt_token_count if found.usage_metadata is not None else None
    if told is not None:
        return chat_pb2.Usage(input_tokens=count(told))
    counts = [each.statistics.token_count for each in vectors if each.statistics is not None]
    if counts and None not in counts:
        return chat_pb2.Usage(input_tokens=sum(map(count, counts)))
    return chat_pb2.Usage(input_tokens=sum(tokens_in(len(each.text)) for each in request.inputs), estimated=True)


def _unreadable(what: str) -> CallError:
    return CallError(Reason.UPSTREAM_PROTOCOL, f"The upstream sent {what}.")

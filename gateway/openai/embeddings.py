"""`/v1/embeddings`: OpenAI's JSON to an `EmbedRequest`, and the vectors back. Pure."""

from __future__ import annotations

import base64
import struct
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Raw

from gateway.openai import render
from gateway.openai.fields import decode_body, named_model
from gateway.openai.inputs import Inputs, split
from trestle.openjson import NOTHING, Open, OpenDecoder
from trestle.v1 import embedding_pb2

Object = dict[str, Any]


class Body(Open):
    """CreateEmbeddingRequest."""

    model: str
    input: Inputs
    encoding_format: Annotated[str, Meta(min_length=1)] | None = None
    """`float`, `base64` or a vendor's own word, which the upstream judges."""
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    user: str | None = None


class EmbedAsk(msgspec.Struct, frozen=True, gc=False):
    """A decoded body. model: the public name, still to be resolved. base64: the form in which vectors are wanted."""

    model: str
    request: embedding_pb2.EmbedRequest
    base64: bool


_BODY: Final = OpenDecoder(Body)


def decode_embed(body: bytes) -> EmbedAsk:
    """Raises `CallError` (INVALID_REQUEST) whose `param` is the path of the field at fault."""
    asked: Body = decode_body(_BODY, body)
    texts, single = split(asked.input, "input")
    request = embedding_pb2.EmbedRequest(
        dimensions=asked.dimensions,
        user=asked.user or "",
        single=single,
        encoding_format=asked.encoding_format or "",
        extra_json=b"" if asked.extra is NOTHING else bytes(asked.extra),
    )
    for text in texts:
        if isinstance(text, str):
            request.inputs.add(text=text)
        else:
            request.inputs.add().tokens.ids.extend(text)
    return EmbedAsk(named_model(asked.model), request, asked.encoding_format == "base64")


def encode_embeddings(response: embedding_pb2.EmbedResponse, ask: EmbedAsk) -> bytes:
    """The body of a 200."""
    usage = response.usage
    data = [_entry(i, each, ask.base64) for i, each in enumerate(response.embeddings)]
    counts: Object = {
        "prompt_tokens": usage.input_tokens,
        "total_tokens": usage.total_tokens or usage.input_tokens + usage.output_tokens,
    }
    if usage.estimated:
        counts["estimated"] = True
    out: Object = {
        "object": "list",
        "data": data,
        "model": response.model,
        "usage": render.extend(counts, usage.extra_json),
    }
    return msgspec.json.encode(render.extend(out, response.extra_json))


def _entry(index: int, embedding: embedding_pb2.Embedding, as_base64: bool) -> Object:
    entry: Object = {"object": "embedding", "index": index}
    if embedding.WhichOneof("value") is not None:
        entry["embedding"] = _vector(embedding, as_base64)
    return render.extend(entry, embedding.extra_json)


def _vector(embedding: embedding_pb2.Embedding, as_base64: bool) -> Any:
    if embedding.HasField("values_json"):
        if not as_base64:
            return Raw(embedding.values_json)
        try:
            values = msgspec.json.decode(embedding.values_json, type=list[float])
            return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
        except (msgspec.DecodeError, OverflowError):  # a vector for each token, or numbers of 64 bits
            return Raw(embedding.values_json)
    if embedding.HasField("other_json"):
        return Raw(embedding.other_json)
    raw = embedding.float32_le
    if as_base64:
        return base64.b64encode(raw).decode()
    return list(struct.unpack(f"<{len(raw) // 4}f", raw[: len(raw) // 4 * 4]))

"""Embeddings and moderations, there and back: requests that are answered in one piece. Pure."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import NOTHING, OpenDecoder, assert_utf8
from trestle.tokens import tokens_in
from trestle.v1 import chat_pb2, embedding_pb2, moderation_pb2
from worker.families.openai import wire
from worker.families.openai.encode import Object, extend, text_or_tokens
from worker.families.openai.errors import error_from
from worker.families.openai.usage import decode_usage
from worker.request_json import object_of, text_of

_NULL: Final = b"null"


def encode_embed(request: embedding_pb2.EmbedRequest) -> bytes:
    """The request's body. Raises `CallError` naming a field that cannot be written."""
    inputs = [text_or_tokens(each, "input", f"input[{i}]") for i, each in enumerate(request.inputs)]
    body: Object = {"model": request.model, "input": inputs[0] if request.single else inputs}
    if request.HasField("dimensions"):
        body["dimensions"] = request.dimensions
    if request.encoding_format:
        body["encoding_format"] = request.encoding_format
    if request.user:
        body["user"] = request.user
    extend(body, request.extra_json, "extra_json")
    return msgspec.json.encode(body)


def decode_embed(body: bytes, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
    """The vectors in the order of the inputs, in the form in which they came. A string is float32 only where `base64`
    was asked for: of itself it does not say what it encodes. Raises `CallError`."""
    found = _parse(wire.EMBEDDINGS, body)
    response = embedding_pb2.EmbedResponse(model=found.model or request.model)
    alike = len(found.data) > 1 and len({entry.index for entry in found.data}) == 1  # some number all of them 0
    entries = {at if alike or entry.index is None else entry.index: entry for at, entry in enumerate(found.data)}
    if sorted(entries) != list(range(len(request.inputs))):
        raise _unreadable("not one embedding for each input")
    packed = _form_of(request) == "base64"
    for at in range(len(entries)):
        entry, out = entries[at], response.embeddings.add()
        if entry.extra is not NOTHING:
            out.extra_json = bytes(entry.extra)
        if entry.embedding is not NOTHING or not _has_several(out.extra_json):
            _value(bytes(entry.embedding), packed, out)
    usage = _usage(found.usage) if found.usage is not None else None
    response.usage.CopyFrom(usage or chat_pb2.Usage(input_tokens=_estimate(request), estimated=True))
    if found.extra is not NOTHING:
        response.extra_json = bytes(found.extra)
    return response


def _form_of(request: embedding_pb2.EmbedRequest) -> str:
    return request.encoding_format or text_of(object_of(request.extra_json, "extra_json").get("encoding_format"))


def _has_several(extra_json: bytes) -> bool:
    """Whether an entry's vectors stand among its extras: Jina's, one for each token."""
    return bytes(object_of(extra_json, "extra_json").get("embeddings", Raw(b"")))[:1] == b"["


def _value(raw: bytes, packed: bool, out: embedding_pb2.Embedding) -> None:
    if raw[:1] == b"[":
        out.values_json = raw
        return
    if raw[:1] == b"{":  # of several types at once, by type
        out.other_json = raw
        return
    try:
        text = msgspec.json.decode(raw, type=str)
        numbers = base64.b64decode(text, validate=True) if packed else b""
    except (msgspec.DecodeError, ValueError):
        wanted = "base64, which was asked for" if packed else "a string"
        raise _unreadable(f"an embedding that is neither numbers nor {wanted}") from None
    if packed and len(numbers) % 4 == 0:
        out.float32_le = numbers
    else:
        out.other_json = raw


def _usage(found: wire.Usage) -> chat_pb2.Usage | None:
    """What was told; there is no completion, so that a total alone is the prompt's."""
    if found.prompt_tokens is None and found.total_tokens is not None:
        found.prompt_tokens = found.total_tokens
    return decode_usage(found, chat_pb2.Usage)


def _estimate(request: embedding_pb2.EmbedRequest) -> int:
    return sum(len(each.tokens.ids) or tokens_in(len(each.text)) for each in request.inputs)


def encode_moderation(request: moderation_pb2.ModerateRequest) -> bytes:
    """The request's body. Raises `CallError` for extras that are no object."""
    body: Object = {"input": Raw(request.input_json)}
    if request.model:
        body["model"] = request.model
    extend(body, request.extra_json, "extra_json")
    return msgspec.json.encode(body)


def decode_moderation(body: bytes) -> moderation_pb2.ModerateResponse:
    """Raises `CallError` (UPSTREAM_PROTOCOL)."""
    found = _parse(wire.MODERATION, body)
    if bytes(found.results)[:1] != b"[":
        raise _unreadable("no results")
    response = moderation_pb2.ModerateResponse(
        id=found.id or "", model=found.model or "", results_json=bytes(found.results)
    )
    if found.extra is not NOTHING:
        response.extra_json = bytes(found.extra)
    return response


def _parse(decoder: OpenDecoder[Any], body: bytes) -> Any:
    try:
        assert_utf8(body)
        found = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _unreadable("an answer that cannot be read") from None
    if found.error is not NOTHING and bytes(found.error) != _NULL:
        raise error_from(body, None, {}, "")
    return found


def _unreadable(what: str) -> CallError:
    return CallError(Reason.UPSTREAM_PROTOCOL, f"The upstream sent {what}.")

"""What OpenAI-like upstreams send, as types: the objects of an answer, open for what vendors add.

One tree serves an answer in one piece and a chunk of a stream: a choice has a `message` in the one and a `delta` in the
other. Types are as loose as recorded traffic is (null where the schema has an object, lists where it has text); what a
member means is decided in decode.py.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Generic, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Raw

from trestle.openjson import NOTHING, Open, OpenDecoder

Number: TypeAlias = int | float | str
"""A count or an instant; a few vendors write it as a string."""
Byte: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
C = TypeVar("C")
_DIGITS: Final = re.compile("[0-9]{1,19}")


def whole(value: Number | None) -> int | None:
    """A vendor's count or instant as a whole number; None for what none can be."""
    if isinstance(value, str):
        value = int(value) if _DIGITS.fullmatch(value) else None
    return int(value) if value is not None and 0 <= value < 2**63 else None


class FunctionPiece(Open):
    name: str | None = None
    arguments: Raw = NOTHING
    """A string; a few vendors send the object itself."""


class CustomPiece(Open):
    name: str | None = None
    input: str | None = None


class ToolCallPiece(Open):
    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionPiece | None = None
    custom: CustomPiece | None = None


class AudioPiece(Open):
    id: str | None = None
    data: str | None = None
    transcript: str | None = None
    expires_at: Number | None = None


class Delta(Open):
    """A `delta` or a `message`."""

    role: str | None = None
    content: str | list[Raw] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: Raw = NOTHING
    tool_calls: list[ToolCallPiece] | ToolCallPiece | None = None
    """A list; TGI streams the one call itself."""
    function_call: FunctionPiece | None = None
    audio: AudioPiece | None = None
    annotations: Raw = NOTHING
    """Carried on as an extra; named here because OpenAI sends it with every message, and a second pass is dear."""


class Choice(Open):
    index: int | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Raw = NOTHING


class PromptDetails(Open):
    cached_tokens: Number | None = None
    cache_write_tokens: Number | None = None
    audio_tokens: Number | None = None


class CompletionDetails(Open):
    reasoning_tokens: Number | None = None
    audio_tokens: Number | None = None
    accepted_prediction_tokens: Number | None = None
    rejected_prediction_tokens: Number | None = None


class Usage(Open):
    prompt_tokens: Number | None = None
    completion_tokens: Number | None = None
    total_tokens: Number | None = None
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class UsageParts(msgspec.Struct):
    """What vendors tell beside the totals of a usage: Moonshot, DeepSeek, SGLang."""

    cached_tokens: Number | None = None
    prompt_cache_hit_tokens: Number | None = None
    reasoning_tokens: Number | None = None


class TextChoice(Open):
    """A choice of a legacy text completion."""

    index: int | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Raw = NOTHING


class Answer(Open, Generic[C]):
    """A chunk of a stream or an answer in one piece, its choices of one kind."""

    id: str | None = None
    object: Raw = NOTHING
    created: Number | None = None
    model: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    choices: list[C] | None = None
    usage: Usage | None = None
    error: Raw = NOTHING
    obfuscation: Raw = NOTHING
    """Carried on as an extra; named here because OpenAI sends it with every chunk, and a second pass is dear."""


class TopLogprob(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    token: str
    logprob: float
    bytes: list[Byte] | None = None


class TokenLogprob(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    token: str
    logprob: float
    bytes: list[Byte] | None = None
    top_logprobs: list[TopLogprob] | None = None


class Logprobs(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: list[TokenLogprob] | None = None
    refusal: list[TokenLogprob] | None = None


class ContentPiece(msgspec.Struct, gc=False):
    """A piece of content where a vendor sends a list: text, or thinking with text pieces inside (Mistral; Databricks
    calls it reasoning with a summary)."""

    type: str | None = None
    text: str | None = None
    thinking: str | list[ContentPiece] | None = None
    summary: str | list[ContentPiece] | None = None


class PlainPiece(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A `ContentPiece` and nothing beside."""

    type: str | None = None
    text: str | None = None
    thinking: str | list[PlainPiece] | None = None
    summary: str | list[PlainPiece] | None = None


class ErrorObject(msgspec.Struct):
    """`error`, as an object; a vendor may send any of these as another type, so all are read as they come."""

    message: Raw = NOTHING
    type: Raw = NOTHING
    param: Raw = NOTHING
    code: Raw = NOTHING


class Embedding(Open):
    object: Raw = NOTHING
    index: int | None = None
    embedding: Raw = NOTHING


class Embeddings(Open):
    object: Raw = NOTHING
    data: list[Embedding] = []
    model: str | None = None
    usage: Usage | None = None
    error: Raw = NOTHING


class Moderation(Open):
    id: str | None = None
    model: str | None = None
    results: Raw = NOTHING
    error: Raw = NOTHING


class ModelEntry(msgspec.Struct):
    id: str
    owned_by: str | None = None
    created: Number | None = None


class ModelList(msgspec.Struct):
    data: list[ModelEntry] | None
    """Null where Ollama has no model."""


CHAT: OpenDecoder[Answer[Choice]] = OpenDecoder(Answer[Choice])
TEXT: OpenDecoder[Answer[TextChoice]] = OpenDecoder(Answer[TextChoice])
USAGE = OpenDecoder(Usage)
PARTS = msgspec.json.Decoder(UsageParts)
LOGPROBS = msgspec.json.Decoder(Logprobs)
CONTENT_PIECE = msgspec.json.Decoder(ContentPiece)
PLAIN_PIECE = msgspec.json.Decoder(PlainPiece)
MODELS = msgspec.json.Decoder(ModelList)
MODEL_ARRAY = msgspec.json.Decoder(list[ModelEntry])
EMBEDDINGS = OpenDecoder(Embeddings)
MODERATION = OpenDecoder(Moderation)

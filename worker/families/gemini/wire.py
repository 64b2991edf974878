"""What the Gemini API sends, as types: answers, whole or as the events of a stream, open for what is added."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta, Raw

from trestle.openjson import NOTHING, Open, OpenDecoder

Number: TypeAlias = int | float


class PartialArg(msgspec.Struct, rename="camel"):
    """A piece of the arguments of a call that come in pieces: one of the values, by its path."""

    json_path: str = "$"
    string_value: str | None = None
    number_value: Raw = NOTHING
    bool_value: bool | None = None
    will_continue: bool | None = None


class FunctionCall(Open, rename="camel"):
    id: str | None = None
    name: str | None = None
    args: Raw = NOTHING
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class Part(Open):
    """One part of a turn. What it holds beside text and calls of functions stays as it was written."""

    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = msgspec.field(name="thoughtSignature", default=None)
    function_call: FunctionCall | None = msgspec.field(name="functionCall", default=None)


class Content(msgspec.Struct):
    parts: list[Part] | None = None
    role: str | None = None


class Token(msgspec.Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class TopTokens(msgspec.Struct):
    candidates: list[Token] | None = None


class LogprobsResult(msgspec.Struct, rename="camel"):
    chosen_candidates: list[Token] | None = None
    top_candidates: list[TopTokens] | None = None


class Candidate(Open, rename="camel"):
    content: Content | None = None
    finish_reason: str | None = None
    index: Annotated[int, Meta(ge=0, lt=2**31)] | None = None
    logprobs_result: LogprobsResult | None = None


class PromptFeedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class TokenCount(msgspec.Struct, rename="camel"):
    modality: str | None = None
    token_count: Number | None = None


class Usage(Open, rename="camel"):
    prompt_token_count: Number | None = None
    tool_use_prompt_token_count: Number | None = None
    candidates_token_count: Number | None = None
    thoughts_token_count: Number | None = None
    cached_content_token_count: Number | None = None
    total_token_count: Number | None = None
    prompt_tokens_details: Raw = NOTHING
    candidates_tokens_details: Raw = NOTHING
    cache_tokens_details: Raw = NOTHING
    tool_use_prompt_tokens_details: Raw = NOTHING
    service_tier: Raw = NOTHING
    traffic_type: Raw = NOTHING


class Response(Open, rename="camel"):
    """An answer, or an event of one."""

    candidates: list[Candidate] | None = None
    prompt_feedback: Raw = NOTHING
    usage_metadata: Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = NOTHING


class Segment(msgspec.Struct, rename="camel"):
    """A span of the answer, in bytes of its UTF-8."""

    start_index: int = 0
    end_index: int = 0
    text: str | None = None


class Source(msgspec.Struct):
    uri: str | None = None
    title: str | None = None


class GroundingChunk(msgspec.Struct):
    web: Source | None = None
    maps: Source | None = None


class GroundingSupport(msgspec.Struct, rename="camel"):
    segment: Segment | None = None
    grounding_chunk_indices: list[int] | None = None


class Grounding(msgspec.Struct, rename="camel"):
    grounding_chunks: list[GroundingChunk] | None = None
    grounding_supports: list[GroundingSupport] | None = None


class Citation(msgspec.Struct, rename="camel"):
    start_index: int = 0
    end_index: int = 0
    uri: str | None = None
    title: str | None = None


class Citations(msgspec.Struct):
    citations: list[Citation] | None = None


class Statistics(msgspec.Struct):
    token_count: Number | None = None


class Vector(Open):
    values: Raw = NOTHING
    statistics: Statistics | None = None


class Prediction(msgspec.Struct):
    embeddings: Vector


class EmbedUsage(msgspec.Struct, rename="camel"):
    prompt_token_count: Number | None = None


class Embeddings(msgspec.Struct, rename="camel"):
    """An answer of embedContent, batchEmbedContents or, on Vertex AI, predict: one of the first three members."""

    embedding: Vector | None = None
    embeddings: list[Vector] | None = None
    predictions: list[Prediction] | None = None
    usage_metadata: EmbedUsage | None = None


class ModelEntry(msgspec.Struct, rename="camel"):
    name: str
    input_token_limit: Number | None = None
    output_token_limit: Number | None = None
    supported_generation_methods: list[str] | None = None


class ModelList(msgspec.Struct, rename="camel"):
    """The list of the API, `models`, or of Vertex AI."""

    models: list[ModelEntry] | None = None
    publisher_models: list[ModelEntry] | None = None


RESPONSE = OpenDecoder(Response)
PROMPT_FEEDBACK = msgspec.json.Decoder(PromptFeedback)
TOKEN_COUNTS = msgspec.json.Decoder(list[TokenCount])
GROUNDING = msgspec.json.Decoder(Grounding)
CITATIONS = msgspec.json.Decoder(Citations)
EMBEDDINGS = OpenDecoder(Embeddings)
MODELS = msgspec.json.Decoder(ModelList)
EVENTS = msgspec.json.Decoder(list[Raw])

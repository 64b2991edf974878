"""What the Messages API sends, as types: a message in one piece and the events of a stream, open for what is added."""

from __future__ import annotations

from typing import TypeAlias

import msgspec
from msgspec import Raw

from trestle.openjson import NOTHING, Open, OpenDecoder

Number: TypeAlias = int | float


class OutputDetails(msgspec.Struct):
    thinking_tokens: Number | None = None


class Usage(Open):
    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_creation_input_tokens: Number | None = None
    cache_read_input_tokens: Number | None = None
    output_tokens_details: OutputDetails | None = None
    service_tier: str | None = None


class Iteration(msgspec.Struct):
    """One of the model's own runs that made up an answer, with what it took."""

    type: str | None = None
    input_tokens: Number | None = None
    output_tokens: Number | None = None
    cache_creation_input_tokens: Number | None = None
    cache_read_input_tokens: Number | None = None


class Message(Open):
    """An answer in one piece, or the `message` of a stream's first event."""

    id: str | None = None
    type: str | None = None
    role: str | None = None
    model: str | None = None
    content: list[Raw] | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None


class MessageChange(Open):
    """The `delta` of a message_delta."""

    stop_reason: str | None = None
    stop_sequence: str | None = None


class Piece(msgspec.Struct, gc=False):
    """The `delta` of a content_block_delta, whatever its type."""

    type: str
    text: str | None = None
    partial_json: str | None = None
    thinking: str | None = None
    signature: str | None = None
    citation: Raw = NOTHING


class PieceEvent(msgspec.Struct, gc=False):
    """A content_block_delta, of which there are many."""

    delta: Piece
    index: int


class RawPieceEvent(msgspec.Struct):
    """A content_block_delta with its delta as it is."""

    delta: Raw
    index: int


class PieceType(msgspec.Struct):
    """What is certain of a delta of any type."""

    type: str


class Event(Open):
    """Any event; which members it has follows from its type."""

    type: str
    index: int = 0
    message: Message | None = None
    content_block: Raw = NOTHING
    delta: MessageChange | None = None
    usage: Usage | None = None


class Block(Open):
    """A content block as it begins, or whole."""

    type: str
    text: str | None = None
    citations: list[Raw] | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = NOTHING


class Citation(msgspec.Struct):
    """What an annotation tells of a citation, where it has a URL."""

    url: str | None = None
    source: str | None = None
    title: str | None = None


class ModelEntry(msgspec.Struct):
    id: str
    created_at: str | None = None
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    capabilities: Raw = NOTHING


class ModelList(msgspec.Struct):
    data: list[ModelEntry]


MESSAGE = OpenDecoder(Message)
EVENT = OpenDecoder(Event)
PIECE_EVENT = msgspec.json.Decoder(PieceEvent)
RAW_PIECE_EVENT = msgspec.json.Decoder(RawPieceEvent)
PIECE_TYPE = msgspec.json.Decoder(PieceType)
BLOCK = OpenDecoder(Block)
CITATION = msgspec.json.Decoder(Citation)
ITERATIONS = msgspec.json.Decoder(list[Iteration] | None)
MODELS = msgspec.json.Decoder(ModelList)

"""The JSON of a chat completion request, as OpenAI's CreateChatCompletionRequest has it. Pure.

Each type names the members that some family interprets; unknown ones are kept verbatim by `Open`, objects of a kind
that is not known here by `Other`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw

from gateway.openai.fields import (
    Choices,
    Int64,
    Penalty,
    Probability,
    RawFlag,
    RawObject,
    RawText,
    Stop,
    StreamOptions,
    Temperature,
)
from trestle.openjson import NOTHING, Open, Other


class ImageUrl(Open):
    url: str
    detail: str | None = None


class InputAudio(Open):
    data: str
    format: str


class FileData(Open):
    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class TextPart(Open, tag="text", tag_field="type"):
    text: str


class RefusalPart(Open, tag="refusal", tag_field="type"):
    refusal: str


class ImagePart(Open, tag="image_url", tag_field="type"):
    image_url: ImageUrl


class AudioPart(Open, tag="input_audio", tag_field="type"):
    input_audio: InputAudio


class FilePart(Open, tag="file", tag_field="type"):
    file: FileData


class CalledFunction(Open):
    name: str
    arguments: str


class CalledCustom(Open):
    name: str
    input: str


class Seal(Open):
    """A vendor's seal on a call (an extension): given with the call, to be sent back with it."""

    by: str
    signature: str


class FunctionCall(Open, tag="function", tag_field="type"):
    function: CalledFunction
    id: str | None = None
    seal: Seal | None = None


class CustomCall(Open, tag="custom", tag_field="type"):
    custom: CalledCustom
    id: str | None = None
    seal: Seal | None = None


class ReasoningBlock(Open):
    """One block of thinking (an extension): given with the answer, to be sent back untouched. redacted: base64."""

    text: str | None = None
    signature: str | None = None
    redacted: str | None = None
    position: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    by: str | None = None
    index: int | None = None


class Message(Open):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart | RefusalPart | ImagePart | AudioPart | FilePart | Other] | None = None
    name: str | None = None
    tool_calls: list[FunctionCall | CustomCall | Other] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning_blocks: list[ReasoningBlock] | None = None
    audio: RawObject = NOTHING


class Function(Open):
    name: str
    description: str | None = None
    parameters: RawObject = NOTHING
    strict: bool | None = None


class FunctionToolObject(Open, tag="function", tag_field="type"):
    function: Function


class NamedFunction(Open):
    name: str


class NamedChoice(Open, tag="function", tag_field="type"):
    function: NamedFunction


class JsonSchema(Open):
    name: str
    description: str | None = None
    schema: RawObject = NOTHING
    strict: bool | None = None


class TextFormat(Open, tag="text", tag_field="type"):
    pass


class JsonFormat(Open, tag="json_object", tag_field="type"):
    pass


class SchemaFormat(Open, tag="json_schema", tag_field="type"):
    json_schema: JsonSchema


class Body(Open):
    """CreateChatCompletionRequest. Members that no family interprets are `Raw`: they go on as extras."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    max_tokens: Int64 | None = None
    max_completion_tokens: Int64 | None = None
    stop: Stop | None = None
    seed: Int64 | None = None
    n: Choices | None = None
    logit_bias: dict[str, Raw] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[FunctionToolObject | Other] | None = None
    tool_choice: str | NamedChoice | Other | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | NamedFunction | None = None
    response_format: TextFormat | JsonFormat | SchemaFormat | Other | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    service_tier: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    modalities: list[str] | None = None
    audio: RawObject = NOTHING
    web_search_options: RawObject = NOTHING
    # Forwarded, interpreted by no family:
    metadata: RawObject = NOTHING
    moderation: RawObject = NOTHING
    prediction: RawObject = NOTHING
    prompt_cache_key: RawText = NOTHING
    prompt_cache_options: RawObject = NOTHING
    prompt_cache_retention: RawText = NOTHING
    store: RawFlag = NOTHING

"""The body of a chat completion request: OpenAI's JSON to a `ChatRequest`. Pure.

One typed pass (msgspec) for a request of known members; unknown members cost a second one and travel on verbatim. What
only an upstream can judge is not judged here (WIRE 17); what is wrong here names its field in the client's words.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Raw

from gateway.openai import wire
from gateway.openai.fields import (
    decode_body,
    forwarded,
    invalid,
    missing,
    mistyped,
    named_model,
    put_stop,
    stream_options,
)
from trestle.openjson import NOTHING, OpenDecoder, Other, join
from trestle.v1 import chat_pb2


class ChatAsk(msgspec.Struct, frozen=True, gc=False):
    """A decoded body: the request for the worker, and what concerns the edge alone.

    model: the public name, still to be resolved. include_usage: whether a stream ends with a usage chunk.
    """

    model: str
    request: chat_pb2.ChatRequest
    stream: bool
    include_usage: bool


_BODY: Final = OpenDecoder(wire.Body)
_ROLES: Final = {
    "system": chat_pb2.ROLE_SYSTEM,
    "developer": chat_pb2.ROLE_DEVELOPER,
    "user": chat_pb2.ROLE_USER,
    "assistant": chat_pb2.ROLE_ASSISTANT,
    "tool": chat_pb2.ROLE_TOOL,
    "function": chat_pb2.ROLE_FUNCTION,
}
_MODES: Final = {
    "auto": chat_pb2.TOOL_MODE_AUTO,
    "none": chat_pb2.TOOL_MODE_NONE,
    "required": chat_pb2.TOOL_MODE_REQUIRED,
}
# The first byte says the JSON type, which is all that is asked of a member that is only forwarded.
_FORWARDED: Final = {
    "metadata": (b"{", "an object"),
    "moderation": (b"{", "an object"),
    "prediction": (b"{", "an object"),
    "prompt_cache_key": (b'"', "a string"),
    "prompt_cache_options": (b"{", "an object"),
    "prompt_cache_retention": (b'"', "a string"),
    "store": (b"tf", "a boolean"),
}


def decode_chat(body: bytes) -> ChatAsk:
    """Raises `CallError` (INVALID_REQUEST) whose `param` is the path of the field at fault."""
    return _ask(decode_body(_BODY, body), body)


def _ask(body: wire.Body, raw: bytes) -> ChatAsk:
    request = chat_pb2.ChatRequest()
    for i, message in enumerate(body.messages):
        _message(message, request.messages.add(), i)
    _sampling(body, request)
    if body.tools is not None or body.tool_choice is not None or body.functions is not None:
        _tools(body, request)
    if body.function_call is not None:
        _function_call(body.function_call, request.function_call)
    if body.parallel_tool_calls is not None:
        request.parallel_tool_calls = body.parallel_tool_calls
    if body.response_format is not None:
        _response_format(body.response_format, request.response_format)
    stream = body.stream is True
    request.stream = stream
    include_usage, request.stream_options_json = stream_options(stream, body.stream_options)
    if body.reasoning_effort:
        request.reasoning_effort = body.reasoning_effort
    if body.user:
        request.user = body.user
    if body.service_tier:
        request.service_tier = body.service_tier
    if body.verbosity:
        request.verbosity = body.verbosity
    if body.safety_identifier:
        request.safety_identifier = body.safety_identifier
    if body.modalities:
        request.modalities.extend(body.modalities)
    if body.audio is not NOTHING:
        request.audio_json = forwarded(body.audio, "audio")
    if body.web_search_options is not NOTHING:
        request.web_search_options_json = forwarded(body.web_search_options, "web_search_options")
    request.extra_json = _extra(body)
    return ChatAsk(named_model(body.model), request, stream, include_usage)


def _extra(body: wire.Body) -> bytes:
    """What goes on as it is: the members no family interprets, then the unknown ones in their order."""
    going: dict[str, Raw] = {}
    for name, kind in _FORWARDED.items():
        raw = getattr(body, name)
        if raw is not NOTHING and forwarded(raw, name, kind):
            going[name] = raw
    if not going:
        return b"" if body.extra is NOTHING else bytes(body.extra)
    if body.extra is NOTHING:
        return join(going)
    return join(going)[:-1] + b"," + bytes(body.extra)[1:]


def _message(message: wire.Message, out: chat_pb2.Message, at: int) -> None:
    out.role = _ROLES[message.role]
    content = message.content
    if isinstance(content, str):
        out.text = content
    elif content is not None:
        if not content:
            raise invalid(f"messages[{at}].content", f"Invalid value for 'messages[{at}].content': it is empty.")
        for part in content:
            _PARTS[type(part)](part, out.parts.add())
    elif message.role in ("user", "system", "developer"):
        raise missing(f"messages[{at}].content")
    if message.name:
        out.name = message.name
    if message.tool_calls:
        for call in message.tool_calls:
            _tool_call(call, out.tool_calls.add())
    if message.tool_call_id:
        out.tool_call_id = message.tool_call_id
    if message.function_call is not None:
        called = message.function_call
        legacy = out.tool_calls.add(
            name=called.name, arguments=called.arguments, kind=chat_pb2.TOOL_KIND_LEGACY_FUNCTION
        )
        if called.extra is not NOTHING:
            legacy.function_extra_json = bytes(called.extra)
    if message.refusal is not None:
        out.refusal = message.refusal
    if message.reasoning_blocks:
        for i, block in enumerate(message.reasoning_blocks):
            _reasoning_block(block, out, f"messages[{at}].reasoning_blocks[{i}]")
    elif message.reasoning_content is not None:
        out.reasoning.add(text=message.reasoning_content)
    if message.audio is not NOTHING:
        out.audio_json = forwarded(message.audio, f"messages[{at}].audio")
    if message.extra is not NOTHING:
        out.extra_json = bytes(message.extra)


def _reasoning_block(block: wire.ReasoningBlock, out: chat_pb2.Message, where: str) -> None:
    try:
        redacted = base64.b64decode(block.redacted or "", validate=True)
    except ValueError:  # binascii.Error is one, and letters beyond ASCII are another
        raise mistyped(f"{where}.redacted", "base64") from None
    out.reasoning.add(
        text=block.text or "",
        signature=block.signature or "",
        redacted=redacted,
        position=block.position or 0,
        sealed_by=block.by or "",
    )


def _text_part(part: wire.TextPart, out: chat_pb2.ContentPart) -> None:
    out.text = part.text
    if part.extra is not NOTHING:
        out.extra_json = bytes(part.extra)


def _refusal_part(part: wire.RefusalPart, out: chat_pb2.ContentPart) -> None:
    out.refusal = part.refusal
    if part.extra is not NOTHING:
        out.extra_json = bytes(part.extra)


def _image_part(part: wire.ImagePart, out: chat_pb2.ContentPart) -> None:
    image = part.image_url
    out.image.url = image.url
    if image.detail:
        out.image.detail = image.detail
    if image.extra is not NOTHING:
        out.image.extra_json = bytes(image.extra)
    if part.extra is not NOTHING:
        out.extra_json = bytes(part.extra)


def _audio_part(part: wire.AudioPart, out: chat_pb2.ContentPart) -> None:
    audio = part.input_audio
    out.audio.data, out.audio.format = audio.data, audio.format
    if audio.extra is not NOTHING:
        out.audio.extra_json = bytes(audio.extra)
    if part.extra is not NOTHING:
        out.extra_json = bytes(part.extra)


def _file_part(part: wire.FilePart, out: chat_pb2.ContentPart) -> None:
    file = part.file
    out.file.SetInParent()
    out.file.file_id, out.file.file_data = file.file_id or "", file.file_data or ""
    out.file.filename = file.filename or ""
    if file.extra is not NOTHING:
        out.file.extra_json = bytes(file.extra)
    if part.extra is not NOTHING:
        out.extra_json = bytes(part.extra)


def _other_part(part: Other, out: chat_pb2.ContentPart) -> None:
    out.other_json = bytes(part.whole)


_PARTS: Final[dict[type, Callable[[Any, chat_pb2.ContentPart], None]]] = {
    wire.TextPart: _text_part,
    wire.RefusalPart: _refusal_part,
    wire.ImagePart: _image_part,
    wire.AudioPart: _audio_part,
    wire.FilePart: _file_part,
    Other: _other_part,
}


def _tool_call(call: wire.FunctionCall | wire.CustomCall | Other, out: chat_pb2.ToolCall) -> None:
    if isinstance(call, Other):
        out.other_json = bytes(call.whole)
        return
    out.id = call.id or ""
    inner: wire.CalledFunction | wire.CalledCustom
    if isinstance(call, wire.FunctionCall):
        inner = call.function
        out.kind = chat_pb2.TOOL_KIND_FUNCTION
        out.arguments = call.function.arguments
    else:
        inner = call.custom
        out.kind = chat_pb2.TOOL_KIND_CUSTOM
        out.arguments = call.custom.input
    out.name = inner.name
    if call.seal is not None:
        out.signature, out.sealed_by = call.seal.signature, call.seal.by
    if inner.extra is not NOTHING:
        out.function_extra_json = bytes(inner.extra)
    if call.extra is not NOTHING:
        out.extra_json = bytes(call.extra)


def _sampling(body: wire.Body, request: chat_pb2.ChatRequest) -> None:
    # One message built from what is there: a field set to None is a field left out.
    request.sampling.MergeFrom(
        chat_pb2.Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            frequency_penalty=body.frequency_penalty,
            presence_penalty=body.presence_penalty,
            max_tokens=body.max_tokens,
            max_completion_tokens=body.max_completion_tokens,
            seed=body.seed,
            n=body.n,
            logit_bias_json=join(body.logit_bias) if body.logit_bias else b"",
            logprobs=body.logprobs,
            top_logprobs=body.top_logprobs,
        )
    )
    if body.stop is not None:
        put_stop(body.stop, request.sampling)
    if body.top_logprobs is not None and body.logprobs is not True:
        raise invalid("top_logprobs", "Invalid value for 'top_logprobs': it needs 'logprobs' to be true.")


def _tools(body: wire.Body, request: chat_pb2.ChatRequest) -> None:
    for i, tool in enumerate(body.tools or ()):
        out = request.tools.add()
        if isinstance(tool, Other):
            out.other_json = bytes(tool.whole)
            continue
        _function(tool.function, out.function, f"tools[{i}].function.parameters")
        if tool.extra is not NOTHING:
            out.extra_json = bytes(tool.extra)
    for i, function in enumerate(body.functions or ()):
        _function(function, request.functions.add(), f"functions[{i}].parameters")
    choice = body.tool_choice
    if choice is None:
        return
    if isinstance(choice, str):
        request.tool_choice.mode = _mode(choice, "tool_choice")
    elif isinstance(choice, Other):
        request.tool_choice.other_json = bytes(choice.whole)
    else:
        request.tool_choice.function = choice.function.name
        if choice.function.extra is not NOTHING:
            request.tool_choice.function_extra_json = bytes(choice.function.extra)
        if choice.extra is not NOTHING:
            request.tool_choice.extra_json = bytes(choice.extra)


def _mode(word: str, where: str) -> chat_pb2.ToolMode.ValueType:
    mode = _MODES.get(word)
    if mode is None:
        known = ", ".join(f"'{each}'" for each in _MODES)
        raise invalid(where, f"Invalid value for '{where}': expected an object or one of {known}.")
    return mode


def _function(function: wire.Function, out: chat_pb2.FunctionTool, where: str) -> None:
    out.name = function.name
    if function.description is not None:
        out.description = function.description
    if function.parameters is not NOTHING:
        out.parameters_json = forwarded(function.parameters, where)
    if function.strict is not None:
        out.strict = function.strict
    if function.extra is not NOTHING:
        out.extra_json = bytes(function.extra)


def _function_call(choice: str | wire.NamedFunction, out: chat_pb2.ToolChoice) -> None:
    if isinstance(choice, str):
        out.mode = _mode(choice, "function_call")
        return
    out.function = choice.name
    if choice.extra is not NOTHING:
        out.extra_json = bytes(choice.extra)


def _response_format(
    wanted: wire.TextFormat | wire.JsonFormat | wire.SchemaFormat | Other, out: chat_pb2.ResponseFormat
) -> None:
    if isinstance(wanted, Other):
        out.other_json = bytes(wanted.whole)
        return
    if isinstance(wanted, wire.SchemaFormat):
        schema, target = wanted.json_schema, out.json_schema
        target.name = schema.name
        if schema.description is not None:
            target.description = schema.description
        if schema.schema is not NOTHING:
            target.schema_json = forwarded(schema.schema, "response_format.json_schema.schema")
        if schema.strict is not None:
            target.strict = schema.strict
        if schema.extra is not NOTHING:
            target.extra_json = bytes(schema.extra)
    elif isinstance(wanted, wire.JsonFormat):
        out.json_object = True
    else:
        out.text = True
    if wanted.extra is not NOTHING:
        out.extra_json = bytes(wanted.extra)

"""A `ChatRequest` as the JSON that OpenAI-like upstreams take. Pure.

What the client wrote in a form of its own (extras, schemas, other arms) is written back byte for byte; a typed member
beats one of the same name among the extras.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.openjson import members
from trestle.v1 import chat_pb2

_ROLES: Final = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
    chat_pb2.ROLE_FUNCTION: "function",
}
_MODES: Final = {
    chat_pb2.TOOL_MODE_AUTO: "auto",
    chat_pb2.TOOL_MODE_NONE: "none",
    chat_pb2.TOOL_MODE_REQUIRED: "required",
}

Object = dict[str, Any]


class Names(NamedTuple):
    """What an upstream calls things. max_tokens: the one name it knows for the token limit; empty: as the client wrote
    it. reasoning: the name of earlier reasoning in a message; empty where it takes none."""

    max_tokens: str = ""
    reasoning: str = "reasoning_content"


def encode_chat(request: chat_pb2.ChatRequest, names: Names, stream_usage: bool) -> bytes:
    """The request's body.

    stream_usage: whether a stream is asked for its usage. Raises `CallError` naming a field that cannot be written.
    """
    body: Object = {
        "model": request.model,
        "messages": [_message(message, names, f"messages[{i}]") for i, message in enumerate(request.messages)],
    }
    if request.HasField("sampling"):
        put_sampling(request.sampling, body, names.max_tokens)
    if request.tools:
        body["tools"] = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    if request.HasField("tool_choice"):
        body["tool_choice"] = _tool_choice(request.tool_choice, "tool_choice")
    if request.HasField("parallel_tool_calls"):
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.functions:
        body["functions"] = [_function(function, f"functions[{i}]") for i, function in enumerate(request.functions)]
    if request.HasField("function_call"):
        body["function_call"] = _function_call_choice(request.function_call)
    if request.HasField("response_format"):
        body["response_format"] = _response_format(request.response_format)
    for name in ("reasoning_effort", "user", "service_tier", "verbosity", "safety_identifier"):
        text = getattr(request, name)
        if text:
            body[name] = text
    if request.modalities:
        body["modalities"] = list(request.modalities)
    if request.audio_json:
        body["audio"] = Raw(request.audio_json)
    if request.web_search_options_json:
        body["web_search_options"] = Raw(request.web_search_options_json)
    if request.stream:
        put_stream(request.stream_options_json, body, stream_usage)
    extend(body, request.extra_json, "extra_json")
    return msgspec.json.encode(body)


def put_stream(stream_options_json: bytes, body: Object, stream_usage: bool) -> None:
    """Asks for a stream and, where the upstream takes that, for its usage: the ledger always wants it (WIRE 9)."""
    body["stream"] = True
    options: Object = {"include_usage": True} if stream_usage else {}
    extend(options, stream_options_json, "stream_options")
    if options:
        body["stream_options"] = options


def extend(target: Object, extra: bytes, where: str) -> Object:
    """Adds the members of an extra_json that the typed ones do not name. Raises `CallError` if it is no object."""
    if extra:
        try:
            for name, value in members(extra).items():
                target.setdefault(name, value)
        except msgspec.DecodeError as error:
            raise CallError(Reason.INVALID_REQUEST, f"{where}: not a JSON object.", param=where) from error
    return target


def text_or_tokens(item: Any, oneof: str, where: str) -> Any:
    """A prompt or an input in the form it came in: text, token ids, or what only the upstream knows. Raises `CallError`
    where it holds nothing."""
    arm = item.WhichOneof(oneof)
    if arm == "text":
        return item.text
    if arm == "tokens":
        return list(item.tokens.ids)
    if arm == "other_json":
        return Raw(item.other_json)
    raise CallError(Reason.INVALID_REQUEST, f"{where} holds nothing.", param=where)


def _message(message: chat_pb2.Message, names: Names, where: str) -> Object:
    role = _ROLES.get(message.role)
    if role is None:
        raise CallError(Reason.INVALID_REQUEST, f"{where}.role is missing.", param=f"{where}.role")
    out: Object = {"role": role}
    if message.HasField("text"):
        out["content"] = message.text
    elif message.parts:
        out["content"] = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(message.parts)]
    else:
        out["content"] = None
    if message.name:
        out["name"] = message.name
    if message.tool_calls:
        _tool_calls(message.tool_calls, out, where)
    if message.tool_call_id:
        out["tool_call_id"] = message.tool_call_id
    if message.reasoning and names.reasoning:
        out[names.reasoning] = "".join(block.text for block in message.reasoning)
    if message.HasField("refusal"):
        out["refusal"] = message.refusal
    if message.audio_json:
        out["audio"] = Raw(message.audio_json)
    if message.extra_json:
        extend(out, message.extra_json, where)
        if b'"content_parts"' in message.extra_json:
            _put_back_parts(out, names)
    return out


def _put_back_parts(message: Object, names: Names) -> None:
    """Content that came as a list of this family's upstreams, thinking among it, goes back as it was."""
    try:
        parts = msgspec.json.decode(message["content_parts"], type=list[dict[str, Raw]])
    except (KeyError, msgspec.DecodeError):
        return  # not what we gave; the upstream judges it
    if parts and all("type" in part for part in parts):  # another family's have none
        message["content"] = message.pop("content_parts")
        message.pop(names.reasoning, None)


def _tool_calls(calls: Any, out: Object, where: str) -> None:
    listed: list[Any] = []
    for i, call in enumerate(calls):
        here = f"{where}.tool_calls[{i}]"
        if call.other_json:
            listed.append(Raw(call.other_json))
            continue
        if call.kind == chat_pb2.TOOL_KIND_LEGACY_FUNCTION:
            inner: Object = {"name": call.name, "arguments": call.arguments}
            out["function_call"] = extend(inner, call.function_extra_json, f"{where}.function_call")
            continue
        if call.kind == chat_pb2.TOOL_KIND_CUSTOM:
            kind, inner = "custom", {"name": call.name, "input": call.arguments}
        else:
            kind, inner = "function", {"name": call.name, "arguments": call.arguments}
        extend(inner, call.function_extra_json, f"{here}.{kind}")
        known: Object = {"id": call.id} if call.id else {}
        listed.append(extend({**known, "type": kind, kind: inner}, call.extra_json, here))
    if listed:
        out["tool_calls"] = listed


def _part(part: chat_pb2.ContentPart, where: str) -> Any:
    arm = part.WhichOneof("part")
    if arm is None:
        raise CallError(Reason.INVALID_REQUEST, f"{where} holds nothing.", param=where)
    if arm == "other_json":
        return Raw(part.other_json)
    return extend(_PARTS[arm](part, where), part.extra_json, where)


def _text_part(part: chat_pb2.ContentPart, where: str) -> Object:
    return {"type": "text", "text": part.text}


def _refusal_part(part: chat_pb2.ContentPart, where: str) -> Object:
    return {"type": "refusal", "refusal": part.refusal}


def _image_part(part: chat_pb2.ContentPart, where: str) -> Object:
    image: Object = {"url": part.image.url}
    if part.image.detail:
        image["detail"] = part.image.detail
    return {"type": "image_url", "image_url": extend(image, part.image.extra_json, f"{where}.image_url")}


def _audio_part(part: chat_pb2.ContentPart, where: str) -> Object:
    audio: Object = {"data": part.audio.data, "format": part.audio.format}
    return {"type": "input_audio", "input_audio": extend(audio, part.audio.extra_json, f"{where}.input_audio")}


def _file_part(part: chat_pb2.ContentPart, where: str) -> Object:
    file: Object = {}
    for name in ("file_id", "file_data", "filename"):
        text = getattr(part.file, name)
        if text:
            file[name] = text
    return {"type": "file", "file": extend(file, part.file.extra_json, f"{where}.file")}


_PARTS: Final[dict[str, Callable[[chat_pb2.ContentPart, str], Object]]] = {
    "text": _text_part,
    "refusal": _refusal_part,
    "image": _image_part,
    "audio": _audio_part,
    "file": _file_part,
}

_LIMITS: Final = ("max_tokens", "max_completion_tokens")


def put_sampling(sampling: chat_pb2.Sampling, body: Object, max_tokens_field: str) -> None:
    """Writes what is set into `body`; max_tokens_field as in `Names`."""
    for name in (
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "n",
        "logprobs",
        "top_logprobs",
    ):
        if sampling.HasField(name):
            body[name] = getattr(sampling, name)
    limits = {name: getattr(sampling, name) for name in _LIMITS if sampling.HasField(name)}
    if max_tokens_field and limits:
        # Both given and one name known: the newer one says what the client means (WIRE 18).
        limits = {max_tokens_field: limits.get("max_completion_tokens", limits.get("max_tokens"))}
    body.update(limits)
    if sampling.stop:
        body["stop"] = sampling.stop[0] if sampling.stop_is_string else list(sampling.stop)
    if sampling.logit_bias_json:
        body["logit_bias"] = Raw(sampling.logit_bias_json)


def _tool(tool: chat_pb2.Tool, where: str) -> Any:
    if tool.HasField("other_json"):
        return Raw(tool.other_json)
    out: Object = {"type": "function", "function": _function(tool.function, f"{where}.function")}
    return extend(out, tool.extra_json, where)


def _function(function: chat_pb2.FunctionTool, where: str) -> Object:
    out: Object = {"name": function.name}
    if function.HasField("description"):
        out["description"] = function.description
    if function.parameters_json:
        out["parameters"] = Raw(function.parameters_json)
    if function.HasField("strict"):
        out["strict"] = function.strict
    return extend(out, function.extra_json, where)


def _tool_choice(choice: chat_pb2.ToolChoice, where: str) -> Any:
    arm = choice.WhichOneof("choice")
    if arm == "other_json":
        return Raw(choice.other_json)
    if arm == "function":
        function = extend({"name": choice.function}, choice.function_extra_json, f"{where}.function")
        return extend({"type": "function", "function": function}, choice.extra_json, where)
    return _MODES.get(choice.mode, "auto")


def _function_call_choice(choice: chat_pb2.ToolChoice) -> Any:
    if choice.HasField("function"):
        return extend({"name": choice.function}, choice.extra_json, "function_call")
    return _MODES.get(choice.mode, "auto")


def _response_format(wanted: chat_pb2.ResponseFormat) -> Any:
    arm = wanted.WhichOneof("format")
    if arm == "other_json":
        return Raw(wanted.other_json)
    if arm != "json_schema":
        return extend({"type": arm or "text"}, wanted.extra_json, "response_format")
    schema = wanted.json_schema
    out: Object = {"name": schema.name}
    if schema.HasField("description"):
        out["description"] = schema.description
    if schema.schema_json:
        out["schema"] = Raw(schema.schema_json)
    if schema.HasField("strict"):
        out["strict"] = schema.strict
    extend(out, schema.extra_json, "response_format.json_schema")
    return extend({"type": "json_schema", "json_schema": out}, wanted.extra_json, "response_format")

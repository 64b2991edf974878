"""Tools and the choice among them, as the API takes them. Pure.

OpenAI's function tools and legacy functions become its tools; custom tools, whose input is free text, become tools with
one text; Anthropic's own tools go on as they are; other vendors' built-in tools are refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.anthropic.content import Block, Object, add_hints, refuse
from worker.families.anthropic.plan import Plan
from worker.request_json import object_of, text_of, type_of

TOOL_HINTS: Final = frozenset(
    {"cache_control", "allowed_callers", "defer_loading", "eager_input_streaming", "input_examples"}
)
_NO_ARGUMENTS: Final = {"type": "object"}
_FREE_TEXT: Final = {
    "type": "object",
    "properties": {"input": {"type": "string", "description": "The input of the tool, as plain text."}},
    "required": ["input"],
}
_ANY_OBJECT: Final = Raw(b'{"type":"object","additionalProperties":true}')
_JSON_TOOL: Final = (
    "Gives the answer to the user as JSON. This is the only way to answer: do not write text. The input of this tool "
    "is the answer itself, with every member that it needs."
)
# web_search_20250305, bash_20250124, ...: a name and the date of its version.
_DATED: Final = re.compile(r"[a-z_0-9]+_20\d{6}")
_MODES: Final = {
    chat_pb2.TOOL_MODE_AUTO: "auto",
    chat_pb2.TOOL_MODE_NONE: "none",
    chat_pb2.TOOL_MODE_REQUIRED: "any",
}


def encode_tools(request: chat_pb2.ChatRequest, plan: Plan, called: Mapping[str, None]) -> Object:
    """The members `tools` and `tool_choice`, where there are any.

    called: names of tools that the conversation holds calls of. Raises `CallError` (UNSUPPORTED) naming the tool that
    cannot be.
    """
    tools = [_tool(tool, plan, f"tools[{i}]") for i, tool in enumerate(request.tools)]
    tools += [_function(each, plan, f"functions[{i}]") for i, each in enumerate(request.functions)]
    if request.web_search_options_json:
        tools.append(_web_search(request.web_search_options_json))
    choice = _choice(request)
    only = choice.pop("only", None)
    if only is not None:
        tools = [tool for tool in tools if isinstance(tool, dict) and tool["name"] in only]
    if plan.json == "tool":
        if choice.get("type") == "none":
            tools = []
        tools.append(_json_tool(request.response_format, plan))
        # With tools of the client's own the model may as well call one of them first.
        alone = {"type": "tool", "name": plan.json_tool, "disable_parallel_tool_use": True}
        choice = {"type": "any"} if len(tools) > 1 else alone
    if not tools:
        if not called:
            return {}
        # The API wants the tools of earlier calls to be there, though none is to be called now.
        return {
            "tools": [{"name": name, "input_schema": _NO_ARGUMENTS} for name in called],
            "tool_choice": {"type": "none"},
        }
    if choice.get("type") in ("any", "tool") and not plan.traits.forced_tools:
        choice = {"type": "auto"}
    if one_call_only(request) and choice.get("type") != "none":
        choice.setdefault("type", "auto")
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools, "tool_choice": choice} if choice else {"tools": tools}


def one_call_only(request: chat_pb2.ChatRequest) -> bool:
    """Whether the client wants at most one call; the legacy form has room for one only."""
    if request.HasField("parallel_tool_calls"):
        return not request.parallel_tool_calls
    return bool(request.functions) and not request.tools


def choice_type(request: chat_pb2.ChatRequest) -> str:
    """The type of the `tool_choice` that the client asks for, empty for none."""
    return str(_choice(request).get("type", ""))


def _tool(tool: chat_pb2.Tool, plan: Plan, where: str) -> Block:
    if not tool.HasField("other_json"):
        block = _function(tool.function, plan, f"{where}.function")
        if tool.extra_json:
            add_hints(block, tool.extra_json, TOOL_HINTS, where)
        return block
    found = object_of(tool.other_json, where)
    kind = type_of(found)
    if kind == "custom" and "custom" in found:
        return _custom(object_of(bytes(found["custom"]), f"{where}.custom"), f"{where}.custom")
    if kind == "mcp_toolset" or _DATED.fullmatch(kind) or (kind == "custom" and "input_schema" in found):
        return Raw(tool.other_json)
    raise refuse(f"tools of type {kind!r}", where)


def _function(function: chat_pb2.FunctionTool, plan: Plan, where: str) -> Object:
    if not function.name:
        raise CallError(Reason.INVALID_REQUEST, f"{where}.name is missing.", param=f"{where}.name")
    schema = function.parameters_json
    out: Object = {"name": function.name, "input_schema": _input_schema(schema, f"{where}.parameters")}
    if function.HasField("description"):
        out["description"] = function.description
    if function.strict and function.name in plan.strict:
        out["strict"] = True
        out["input_schema"] = Raw(plan.strict[function.name])
    if function.extra_json:
        add_hints(out, function.extra_json, TOOL_HINTS, where)
    return out


def _input_schema(schema: bytes, where: str) -> Raw | Object:
    """The parameters as they are, if only they say what they must: that they are an object."""
    if not schema:
        return _NO_ARGUMENTS
    found = object_of(schema, where)
    if type_of(found) == "object":
        return Raw(schema)
    if "type" not in found or bytes(found["type"]) == b"null":
        return {**found, "type": "object"}
    raise CallError(
        Reason.INVALID_REQUEST, f"{where}: its type must be \"object\".", param=where, code="invalid_value"
    )


def _custom(tool: Mapping[str, Raw], where: str) -> Object:
    name = text_of(tool.get("name"))
    if not name:
        raise CallError(Reason.INVALID_REQUEST, f"{where}.name is missing.", param=f"{where}.name")
    wanted = tool.get("format")
    if wanted is not None and type_of(object_of(bytes(wanted), f"{where}.format")) != "text":
        raise refuse("custom tools with a grammar", f"{where}.format")
    out: Object = {"name": name, "input_schema": _FREE_TEXT}
    if "description" in tool:
        out["description"] = tool["description"]
    return out


def _web_search(options_json: bytes) -> Object:
    out: Object = {"type": "web_search_20250305", "name": "web_search"}
    location = object_of(options_json, "web_search_options").get("user_location")
    if location is not None and bytes(location) != b"null":
        where = "web_search_options.user_location"
        near = object_of(bytes(location), where).get("approximate")
        out["user_location"] = {
            "type": "approximate",
            **(object_of(bytes(near), f"{where}.approximate") if near is not None else {}),
        }
    return out


def _json_tool(wanted: chat_pb2.ResponseFormat, plan: Plan) -> Object:
    schema: Raw | Object = _ANY_OBJECT
    description = _JSON_TOOL
    if wanted.HasField("json_schema"):
        if wanted.json_schema.schema_json:
            schema = _input_schema(wanted.json_schema.schema_json, "response_format.json_schema.schema")
        if wanted.json_schema.description:
            description = f"{_JSON_TOOL}\n\n{wanted.json_schema.description}"
    return {"name": plan.json_tool, "description": description, "input_schema": schema}


def _choice(request: chat_pb2.ChatRequest) -> Object:
    """The client's choice, empty for none; `only` stands beside it where it allows some tools and no others."""
    where, choice = "tool_choice", request.tool_choice
    if not request.HasField("tool_choice"):
        where, choice = "function_call", request.function_call
    arm = choice.WhichOneof("choice")
    if arm is None:
        return {}
    if arm == "mode":
        return {"type": _MODES.get(choice.mode, "auto")}
    if arm == "function":
        return {"type": "tool", "name": choice.function}
    return _other_choice(object_of(choice.other_json, where), where)


def _other_choice(found: Mapping[str, Raw], where: str) -> Object:
    kind = type_of(found)
    if kind == "custom" and "custom" in found:
        return {"type": "tool", "name": text_of(object_of(bytes(found["custom"]), where).get("name"))}
    if kind in ("auto", "any", "none") or (kind == "tool" and "name" in found):
        return dict(found)
    if kind == "allowed_tools" and "allowed_tools" in found:
        allowed = object_of(bytes(found["allowed_tools"]), f"{where}.allowed_tools")
        mode = "any" if text_of(allowed.get("mode")) == "required" else "auto"
        return {"type": mode, "only": _allowed(allowed, f"{where}.allowed_tools.tools")}
    raise refuse(f"a tool_choice of type {kind!r}", where)


def _allowed(allowed: Mapping[str, Any], where: str) -> frozenset[str]:
    try:
        listed = msgspec.json.decode(allowed.get("tools", Raw(b"[]")), type=list[dict[str, Raw]])
    except msgspec.DecodeError:
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a list of tools.", param=where) from None
    names = set()
    for tool in listed:
        kind = type_of(tool)
        if kind in tool:
            names.add(text_of(object_of(bytes(tool[kind]), where).get("name")))
    return frozenset(names)

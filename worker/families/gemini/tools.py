"""Tools and the choice among them, as the API takes them. Pure.

OpenAI's function tools and legacy functions become function declarations; Gemini's own tools (search, code execution,
...) go on as they are; custom tools and other vendors' built-in ones are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.content import Object, refused
from worker.families.gemini.plan import Plan, camel, choice_of, function_name
from worker.families.gemini.schema import as_taken
from worker.request_json import object_of, text_of, type_of

# Gemini's own tools, which a client names by the `type` of a tool, in either spelling.
_NATIVE: Final = frozenset(
    {
        "codeExecution",
        "computerUse",
        "enterpriseWebSearch",
        "fileSearch",
        "googleMaps",
        "googleSearch",
        "googleSearchRetrieval",
        "retrieval",
        "urlContext",
    }
)
_ANY_OBJECT: Final = Raw(b'{"type":"object","additionalProperties":true}')
_JSON_TOOL: Final = (
    "Gives the answer to the user as JSON. This is the only way to answer: do not write text. The arguments of this "
    "function are the answer itself, with every member that it needs."
)
_MODES: Final = {
    chat_pb2.TOOL_MODE_AUTO: "AUTO",
    chat_pb2.TOOL_MODE_NONE: "NONE",
    chat_pb2.TOOL_MODE_REQUIRED: "ANY",
}


def encode_tools(request: chat_pb2.ChatRequest, plan: Plan) -> Object:
    """The members `tools` and `toolConfig`, where there are any. Raises `CallError` (UNSUPPORTED, INVALID_REQUEST)
    naming the tool that cannot be."""
    declared: list[Object] = []
    tools: list[Object] = []
    for i, tool in enumerate(request.tools):
        if tool.HasField("other_json"):
            tools.append(_native(tool.other_json, f"tools[{i}]"))
        else:
            declared.append(_declaration(tool.function, f"tools[{i}].function"))
    declared += [_declaration(each, f"functions[{i}]") for i, each in enumerate(request.functions)]
    if request.web_search_options_json:
        object_of(request.web_search_options_json, "web_search_options")
        tools.append({"googleSearch": {}})
    config = _choice(request)
    if not plan.tools:
        declared, tools, config = [], [], {}
    only = config.pop("only", None)
    if only is not None:
        declared = [each for each in declared if each["name"] in only]
    if plan.json == "tool":
        declared.append(_json_tool(request.response_format, plan))
        # With functions of the client's own the model may as well call one of them first.
        config = {"mode": "ANY"}
    elif config.get("mode", "AUTO") == "AUTO" and plan.traits.validated_calls and wants_strict(request):
        config = {**config, "mode": "VALIDATED"}
    tool_config: Object = dict(plan.tool_config)
    if declared and tools and plan.traits.tools_together and not plan.vertex:
        # Together the API takes them only so. Vertex AI takes them as they are, and knows no such member.
        tool_config.setdefault("includeServerSideToolInvocations", True)
        if config.get("mode", "AUTO") == "AUTO":
            config = {**config, "mode": "VALIDATED"}
    if declared:
        tools.insert(0, {"functionDeclarations": declared})
    out: Object = {"tools": tools} if tools else {}
    own = tool_config.pop("functionCallingConfig", None)
    if declared and own is not None and plan.json != "tool":
        config |= {camel(name): value for name, value in object_of(own, "toolConfig.functionCallingConfig").items()}
        config.pop("streamFunctionCallArguments", None)
    if declared and config:
        tool_config["functionCallingConfig"] = config
    if tool_config:
        out["toolConfig"] = tool_config
    return out


def functions_of(request: chat_pb2.ChatRequest) -> Iterable[chat_pb2.FunctionTool]:
    """The functions that the client declares, in either form."""
    yield from (tool.function for tool in request.tools if tool.HasField("function"))
    yield from request.functions


def wants_strict(request: chat_pb2.ChatRequest) -> bool:
    """Whether a function's calls must follow its schema."""
    return any(function.strict for function in functions_of(request))


def json_schema(schema: bytes, where: str) -> Raw:
    """A schema as the API takes it. Raises `CallError` (INVALID_REQUEST) for what is no object."""
    object_of(schema, where)
    try:
        return Raw(as_taken(schema))
    except (msgspec.DecodeError, RecursionError):
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a JSON Schema.", param=where) from None


def _declaration(function: chat_pb2.FunctionTool, where: str) -> Object:
    if not function.name:
        raise CallError(Reason.INVALID_REQUEST, f"{where}.name is missing.", param=f"{where}.name")
    out: Object = {"name": function_name(function.name)}
    if function.HasField("description"):
        out["description"] = function.description
    if function.parameters_json.strip() not in (b"", b"{}"):
        out["parametersJsonSchema"] = json_schema(function.parameters_json, f"{where}.parameters")
    return out


def _native(tool_json: bytes, where: str) -> Object:
    found = object_of(tool_json, where)
    kind = type_of(found)
    name = camel(kind)
    if name not in _NATIVE:
        raise refused(f"tools of type {kind!r}", where)
    settings = found.get(kind, found.get(name, Raw(b"{}")))
    return {name: settings if bytes(settings)[:1] == b"{" else {}}


def _json_tool(wanted: chat_pb2.ResponseFormat, plan: Plan) -> Object:
    schema, description = _ANY_OBJECT, _JSON_TOOL
    if wanted.HasField("json_schema"):
        if wanted.json_schema.schema_json:
            schema = json_schema(wanted.json_schema.schema_json, "response_format.json_schema.schema")
        if wanted.json_schema.description:
            description = f"{_JSON_TOOL}\n\n{wanted.json_schema.description}"
    return {"name": plan.json_tool, "description": description, "parametersJsonSchema": schema}


def _choice(request: chat_pb2.ChatRequest) -> Object:
    """The client's choice, empty for none; `only` stands beside it where it allows some functions and no others."""
    choice = choice_of(request)
    where = "tool_choice" if request.HasField("tool_choice") else "function_call"
    arm = choice.WhichOneof("choice")
    if arm is None:
        return {}
    if arm == "mode":
        return {"mode": _MODES.get(choice.mode, "AUTO")}
    if arm == "function":
        return {"mode": "ANY", "allowedFunctionNames": [function_name(choice.function)]}
    found = object_of(choice.other_json, where)
    kind = type_of(found)
    if kind != "allowed_tools" or "allowed_tools" not in found:
        raise refused(f"a tool_choice of type {kind!r}", where)
    allowed = object_of(found["allowed_tools"], f"{where}.allowed_tools")
    names = _allowed(allowed, f"{where}.allowed_tools.tools")
    if text_of(allowed.get("mode")) == "required":
        return {"mode": "ANY", "allowedFunctionNames": names}
    return {"mode": "AUTO", "only": frozenset(names)}


def _allowed(allowed: Mapping[str, Any], where: str) -> list[str]:
    try:
        listed = msgspec.json.decode(allowed.get("tools", Raw(b"[]")), type=list[dict[str, Raw]])
    except msgspec.DecodeError:
        raise CallError(Reason.INVALID_REQUEST, f"{where}: not a list of tools.", param=where) from None
    functions = (object_of(tool["function"], where) for tool in listed if "function" in tool)
    return [function_name(text_of(function.get("name"))) for function in functions]

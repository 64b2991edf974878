"""Which tools the echo calls, and with what. Pure.

Told to call (`tool_choice`), it calls. Left to itself it calls the tools whose names the user's last words contain, and
none once their results have come.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.echo.heard import Heard, type_of
from worker.families.echo.instance import instance_of

T = TypeVar("T")
_FUNCTION: Final = chat_pb2.TOOL_KIND_FUNCTION
_CUSTOM: Final = chat_pb2.TOOL_KIND_CUSTOM
_LEGACY: Final = chat_pb2.TOOL_KIND_LEGACY_FUNCTION


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that may be called. where: its place in the request."""

    name: str
    kind: chat_pb2.ToolKind.ValueType
    where: str
    parameters: bytes = b""

    def arguments(self, text: str) -> str:
        """What it is called with: the text itself, or JSON that its schema accepts. Raises `CallError`."""
        if self.kind == _CUSTOM:
            return text
        return instance_of(self.parameters, text, f"{self.where}.parameters", "object") if self.parameters else "{}"


class _Named(msgspec.Struct):
    name: str


class _Format(msgspec.Struct):
    type: str


class _Custom(_Named):
    format: _Format | None = None


class _Tool(msgspec.Struct):
    """A tool, or a choice of one, that has no form in the contract."""

    type: str
    function: _Named | None = None
    custom: _Custom | None = None


class _Allowed(msgspec.Struct):
    mode: str
    tools: list[_Tool]


class _AllowedTools(msgspec.Struct):
    allowed_tools: _Allowed


def called(request: chat_pb2.ChatRequest, heard: Heard) -> Sequence[Offer]:
    """The tools to call, in the order of the offer. Raises `CallError` for a choice that cannot be made, and for what
    is no tool of a kind known here."""
    if request.tools or request.HasField("tool_choice"):
        offers = [_offer(tool, i) for i, tool in enumerate(request.tools)]
        chosen = _chosen(request.tool_choice, offers, heard, "tool_choice")
        alone = request.HasField("parallel_tool_calls") and not request.parallel_tool_calls
        if chosen or not request.functions:
            return chosen[:1] if alone else chosen
    legacy = [
        Offer(function.name, _LEGACY, f"functions[{i}]", function.parameters_json)
        for i, function in enumerate(request.functions)
    ]
    if legacy or request.HasField("function_call"):
        return _chosen(request.function_call, legacy, heard, "function_call")[:1]
    return ()


def _offer(tool: chat_pb2.Tool, at: int) -> Offer:
    if tool.HasField("function"):
        return Offer(tool.function.name, _FUNCTION, f"tools[{at}].function", tool.function.parameters_json)
    where = f"tools[{at}]"
    custom = _decoded(tool.other_json, _Tool, where).custom
    if custom is None:
        kind = type_of(tool.other_json)
        raise CallError(Reason.UNSUPPORTED, f"The echo family has no tools of type {kind}.", param=f"{where}.type")
    if custom.format is not None and custom.format.type == "grammar":
        where = f"{where}.custom.format"
        raise CallError(Reason.UNSUPPORTED, "The echo family says no text of a grammar.", param=where)
    return Offer(custom.name, _CUSTOM, where)


def _chosen(choice: chat_pb2.ToolChoice, offers: Sequence[Offer], heard: Heard, where: str) -> Sequence[Offer]:
    arm = choice.WhichOneof("choice")
    mode = choice.mode
    if arm == "function":
        return [_named(choice.function, _by_name(offers), where)]
    if arm == "other_json":
        kind = type_of(choice.other_json)
        if kind == '"custom"':
            custom = _decoded(choice.other_json, _Tool, where).custom
            return [_named(custom.name if custom else "", _by_name(offers), where)]
        if kind != '"allowed_tools"':
            raise CallError(Reason.UNSUPPORTED, f"The echo family has no choice of type {kind}.", param=f"{where}.type")
        allowed = _decoded(choice.other_json, _AllowedTools, where).allowed_tools
        known = _by_name(offers)
        offers = [_named(_name(tool), known, f"{where}.allowed_tools") for tool in allowed.tools]
        mode = chat_pb2.TOOL_MODE_REQUIRED if allowed.mode == "required" else chat_pb2.TOOL_MODE_AUTO
    if mode == chat_pb2.TOOL_MODE_NONE:
        return ()
    mentioned = [] if heard.results else [offer for offer in offers if _mentions(heard.text, offer.name)]
    if mode != chat_pb2.TOOL_MODE_REQUIRED or mentioned:
        return mentioned
    if not offers:
        raise CallError(Reason.INVALID_REQUEST, f"Invalid value for '{where}': there is nothing to call.", param=where)
    return offers[:1]


def _mentions(text: str, name: str) -> bool:
    return name in text and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _by_name(offers: Sequence[Offer]) -> Mapping[str, Offer]:
    """The first of each name."""
    return {offer.name: offer for offer in reversed(offers)}


def _named(name: str, offers: Mapping[str, Offer], where: str) -> Offer:
    found = offers.get(name)
    if found is not None:
        return found
    message = f"Invalid value for '{where}': there is no tool named '{name}'."
    raise CallError(Reason.INVALID_REQUEST, message, param=where)


def _name(tool: _Tool) -> str:
    inner = tool.function or tool.custom
    return inner.name if inner is not None else ""


def _decoded(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CallError(Reason.INVALID_REQUEST, f"Invalid value for '{where}'.", param=where) from None

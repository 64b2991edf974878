"""How one request will be asked: thinking and the form of JSON answers, decided once from what the client wants and
what the model takes. Pure.

Encoder, decoder and the list of ignored parameters all go by the same plan, so that they cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.gemini.models import Traits
from worker.families.gemini.settings import GeminiUpstream
from worker.request_json import asking, object_of, refuse, type_of

JSON_TOOL: Final = "respond_in_json"
# Members of Gemini's own that a client may send beside OpenAI's, in Google's spelling or in snake_case.
OWN: Final = frozenset(
    {"cachedContent", "generationConfig", "labels", "safetySettings", "thinkingConfig", "toolConfig", "topK"}
)
_EFFORTS: Final[Mapping[str, int]] = {
    "minimal": 512,
    "low": 1024,
    "medium": 8192,
    "high": 24576,
    "xhigh": 32768,
    "max": 32768,
}
_SNAKE: Final = re.compile(r"_([a-z])")

JsonForm = Literal["none", "native", "tool"]


@dataclass(slots=True)
class Plan:
    """own: Gemini's members that the client sent, by their names in Google's spelling; config and tool_config: two of
    them, by member. thinking: the `thinkingConfig` to send, None for none. json: the form a JSON answer is asked in;
    json_tool: the name of the tool that carries it. tools: whether the client's tools are sent. names: of functions, as
    they are sent, with the client's. legacy: calls are answered as function_call. files: what `files/...` stands for.
    ignored: what will not be honoured, in the client's words."""

    traits: Traits
    vertex: bool = False
    files: str = ""
    own: dict[str, Raw] = field(default_factory=dict)
    config: dict[str, Raw] = field(default_factory=dict)
    tool_config: dict[str, Raw] = field(default_factory=dict)
    thinking: dict[str, Any] | Raw | None = None
    json: JsonForm = "none"
    json_tool: str = ""
    tools: bool = True
    names: dict[str, str] = field(default_factory=dict)
    legacy: bool = False
    ignored: list[str] = field(default_factory=list)


def make_plan(request: chat_pb2.ChatRequest, settings: GeminiUpstream) -> Plan:
    """Raises `CallError` (INVALID_REQUEST, UNSUPPORTED) naming the parameter at fault."""
    plan = Plan(settings.traits_for(request.model), settings.vertex, "" if settings.vertex else f"{settings.root}/")
    plan.legacy = bool(request.functions) and not request.tools
    if request.extra_json:
        _plan_own(request.extra_json, plan)
    if request.HasField("response_format"):
        _plan_json(request, plan)
    _plan_thinking(request.reasoning_effort, plan)
    if request.HasField("sampling") or "topK" in plan.config:
        _plan_sampling(request.sampling, plan)
    for name in (*(tool.function.name for tool in request.tools), *(each.name for each in request.functions)):
        plan.names.setdefault(function_name(name), name)
    return plan


def function_name(name: str) -> str:
    """A function's name as the API takes it: it begins with a letter or an underscore, where OpenAI's may not."""
    return name if not name or name[0].isalpha() or name[0] == "_" else f"_{name}"


def _plan_sampling(sampling: chat_pb2.Sampling, plan: Plan) -> None:
    """Newer models sample as they see fit, and refuse penalties. What is left out at its default is not missed."""
    if not plan.traits.sampling:
        for name in ("temperature", "top_p"):
            if sampling.HasField(name) and getattr(sampling, name) != 1:
                plan.ignored.append(name)
        if plan.config.pop("topK", None) is not None:
            plan.ignored.append("top_k")
    if not (plan.traits.penalties or plan.vertex):
        plan.ignored += [name for name in ("presence_penalty", "frequency_penalty") if getattr(sampling, name)]


def camel(name: str) -> str:
    """Google's spelling of a name in snake_case; any other as it is."""
    return _SNAKE.sub(lambda found: found.group(1).upper(), name)


def _plan_own(extra_json: bytes, plan: Plan) -> None:
    extra = object_of(extra_json, "extra_json")
    # The way of Google's own OpenAI-compatible endpoint: extra_body={"google": {...}}.
    for where in ("extra_body", "google"):
        inner = extra.get(where)
        if inner is not None and bytes(inner)[:1] == b"{":
            del extra[where]
            extra |= object_of(inner, where)
    asked = frozenset(asking(extra))
    for name, value in extra.items():
        if camel(name) in OWN:
            if bytes(value) != b"null":
                plan.own[camel(name)] = value
        elif name in asked:
            plan.ignored.append(name)
    plan.config = _members(plan.own, "generationConfig")
    plan.tool_config = _members(plan.own, "toolConfig")
    for name in ("thinkingConfig", "topK"):
        if name in plan.own:
            plan.config.setdefault(name, plan.own[name])
    if plan.config.pop("candidateCount", None) is not None:
        plan.ignored.append("generationConfig.candidateCount")  # n is the way, by as many calls


def _members(own: Mapping[str, Raw], name: str) -> dict[str, Raw]:
    return {camel(key): value for key, value in object_of(own.get(name, Raw(b"")), name).items()}


def choice_of(request: chat_pb2.ChatRequest) -> chat_pb2.ToolChoice:
    """The client's choice among its tools, in the new form or the legacy one."""
    return request.tool_choice if request.HasField("tool_choice") else request.function_call


def _forces_call(choice: chat_pb2.ToolChoice) -> bool:
    """Whether the client itself wants a call made, whichever."""
    arm = choice.WhichOneof("choice")
    return (
        arm == "function"
        or (arm == "mode" and choice.mode == chat_pb2.TOOL_MODE_REQUIRED)
        or (arm == "other_json" and b'"required"' in choice.other_json)
    )


def _plan_json(request: chat_pb2.ChatRequest, plan: Plan) -> None:
    arm = request.response_format.WhichOneof("format")
    if arm == "other_json":
        kind = type_of(object_of(request.response_format.other_json, "response_format"))
        raise refuse("gemini", f"a response_format of type {kind!r}", "response_format")
    if arm in (None, "text"):
        return
    plan.json = "native"
    if not (request.tools or request.functions or request.web_search_options_json):
        return
    choice = choice_of(request)
    if _forces_call(choice):
        plan.json = "none"  # a call is wanted now, not an answer; together the API refuses them
    elif plan.traits.json_with_tools:
        return
    elif choice.WhichOneof("choice") == "mode" and choice.mode == chat_pb2.TOOL_MODE_NONE:
        plan.tools = False  # none of them is to be called, and the API refuses them beside JSON
    else:
        names = {tool.function.name for tool in request.tools} | {each.name for each in request.functions}
        plan.json = "tool"
        plan.json_tool = JSON_TOOL
        while plan.json_tool in names:
            plan.json_tool += "_"


def _plan_thinking(effort: str, plan: Plan) -> None:
    own = plan.config.pop("thinkingConfig", None)
    if own is not None and bytes(own) != b"null":
        plan.thinking = {camel(name): value for name, value in object_of(own, "thinkingConfig").items()}
        return
    if not effort:
        return
    traits = plan.traits
    if traits.thinking == "none":
        if effort != "none":
            plan.ignored.append("reasoning_effort")
    elif traits.thinking == "level":
        if effort == "none":
            plan.ignored.append("reasoning_effort")  # it cannot be kept from thinking, only from much of it
            plan.thinking = {"thinkingLevel": traits.levels[0].upper()} if traits.levels else None
        else:
            plan.thinking = {"thinkingLevel": _level(effort, traits.levels).upper(), "includeThoughts": True}
    elif effort == "none":
        plan.thinking = {"thinkingBudget": 0 if traits.thinking_off else traits.budget[0]}
        if not traits.thinking_off:
            plan.ignored.append("reasoning_effort")
    else:
        plan.thinking = {"thinkingBudget": _budget(effort, traits.budget), "includeThoughts": True}


def _level(effort: str, known: tuple[str, ...]) -> str:
    """The level of that name or, of those it ranks among, the next below that the model knows, else its least; an
    unknown word goes on."""
    if effort in known or effort not in _EFFORTS or not known:
        return effort
    ranks = list(_EFFORTS)
    below = [each for each in known if each in ranks and ranks.index(each) < ranks.index(effort)]
    return below[-1] if below else known[0]


def _budget(effort: str, limits: tuple[int, int]) -> int:
    if effort not in _EFFORTS:
        raise CallError(
            Reason.INVALID_REQUEST,
            f"reasoning_effort {effort!r} is none of {', '.join(('none', *_EFFORTS))}.",
            param="reasoning_effort",
            code="invalid_value",
        )
    least, most = limits
    return max(least, min(_EFFORTS[effort], most))

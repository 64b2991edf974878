"""How one request will be asked: thinking, sampling, limits and the form of JSON answers, decided once from what the
client wants and what the model takes. Pure.

Encoder, decoder and the list of ignored parameters all go by the same plan, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from msgspec import Raw

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.anthropic.models import EFFORTS, Traits
from worker.families.anthropic.schema import STRICT_TOOLS, Room, native_schema
from worker.families.anthropic.settings import AnthropicUpstream
from worker.request_json import object_of, text_of, type_of

JSON_TOOL: Final = "respond_in_json"
_BUDGETS: Final[Mapping[str, int]] = {
    "minimal": 1024,
    "low": 4096,
    "medium": 8192,
    "high": 16384,
    "xhigh": 24576,
    "max": 28672,
}
_MIN_BUDGET: Final = 1024
_LEAST_TOP_P: Final = 0.95  # with thinking

JsonForm = Literal["none", "native", "tool"]


@dataclass(slots=True)
class Plan:
    """thinking: the request's member, None for none sent. keeps_thinking: whether earlier thinking is sent back.
    effort: the word of `output_config.effort`, empty for none. json: the form a JSON answer is asked in; json_tool: the
    name of the tool that carries it. strict: the schemas of the functions that will be strict, by name. custom_tools:
    names of the client's custom tools, whose input is free text. legacy: calls are answered as function_call. extra:
    the client's further members. ignored: what will not be honoured, in the client's words."""

    traits: Traits
    extra: dict[str, Raw]
    thinking: dict[str, Any] | Raw | None = None
    keeps_thinking: bool = True
    effort: str = ""
    max_tokens: int = 0
    temperature: float | None = None
    top_p: float | None = None
    top_k: Raw | None = None
    json: JsonForm = "none"
    json_tool: str = ""
    strict: dict[str, bytes] = field(default_factory=dict)
    custom_tools: frozenset[str] = frozenset()
    legacy: bool = False
    ignored: list[str] = field(default_factory=list)


def make_plan(request: chat_pb2.ChatRequest, settings: AnthropicUpstream) -> Plan:
    """Raises `CallError` (INVALID_REQUEST, UNSUPPORTED) naming the parameter at fault."""
    plan = Plan(settings.traits_for(request.model), object_of(request.extra_json, "extra_json"))
    plan.legacy = bool(request.functions) and not request.tools
    plan.custom_tools = _custom_tools(request)
    room = Room()
    if request.HasField("response_format"):
        _plan_json(request, plan, room)
    if plan.traits.native_json:
        plan.strict = _strict(request, room)
    _plan_limit(request.sampling, plan)
    _plan_thinking(request, plan)
    if request.HasField("sampling") or "top_k" in plan.extra:
        _plan_sampling(request.sampling, plan)
    return plan


def _custom_tools(request: chat_pb2.ChatRequest) -> frozenset[str]:
    names = set()
    for tool in request.tools:
        if tool.other_json:
            found = object_of(tool.other_json, "tools")
            if type_of(found) == "custom" and "custom" in found:
                names.add(text_of(object_of(bytes(found["custom"]), "tools").get("name")))
    return frozenset(names)


def forces_call(request: chat_pb2.ChatRequest) -> bool:
    """Whether the client itself wants a call made, whichever."""
    for choice in (request.tool_choice, request.function_call):
        arm = choice.WhichOneof("choice")
        if arm == "function" or (arm == "mode" and choice.mode == chat_pb2.TOOL_MODE_REQUIRED):
            return True
        if arm == "other_json" and b'"required"' in choice.other_json:
            return True
    return False


def _strict(request: chat_pb2.ChatRequest, room: Room) -> dict[str, bytes]:
    """Those of the functions that are to be strict for which there is a schema, and room; in their order."""
    found: dict[str, bytes] = {}
    for function in (*(tool.function for tool in request.tools), *request.functions):
        if function.strict and len(found) < STRICT_TOOLS:
            schema = native_schema(function.parameters_json or b'{"type":"object","properties":{}}')
            if schema is not None and room.take(schema):
                found[function.name] = schema
    return found


def _plan_json(request: chat_pb2.ChatRequest, plan: Plan, room: Room) -> None:
    wanted = request.response_format
    arm = wanted.WhichOneof("format")
    if arm == "other_json":
        kind = type_of(object_of(wanted.other_json, "response_format"))
        raise CallError(
            Reason.UNSUPPORTED,
            f"The anthropic family has no response_format of type {kind!r}.",
            param="response_format",
            code="unsupported_value",
        )
    if arm in (None, "text"):
        return
    if arm == "json_schema" and plan.traits.native_json:
        schema = native_schema(wanted.json_schema.schema_json)
        if schema is not None and room.take(schema):
            plan.json = "native"
            return
    if forces_call(request):
        return  # a call is wanted now, not an answer
    names = {tool.function.name for tool in request.tools} | {function.name for function in request.functions}
    plan.json_tool = JSON_TOOL
    while plan.json_tool in names | plan.custom_tools:
        plan.json_tool += "_"
    plan.json = "tool"


def _plan_limit(sampling: chat_pb2.Sampling, plan: Plan) -> None:
    limit = plan.traits.max_tokens
    for name in ("max_completion_tokens", "max_tokens"):
        if sampling.HasField(name):
            value = getattr(sampling, name)
            limit = value if value >= 0 else limit  # -1 is some vendors' "no limit"
            break
    plan.max_tokens = limit


def _plan_thinking(request: chat_pb2.ChatRequest, plan: Plan) -> None:
    """What to say about thinking. It stays off for a call whose tool loop came back without its signed thinking, which
    the model would refuse to go on with, and for one that forces a call on a model that thinks by budget."""
    traits, effort = plan.traits, request.reasoning_effort
    asked = plan.extra.get("thinking")
    if asked is not None and bytes(asked) != b"null":
        _plan_own_thinking(request, plan, asked)
    elif not effort:
        plan.keeps_thinking = traits.thinking_off != "default"
    elif effort == "none":
        _off(plan)
        if traits.thinking_off == "never":
            plan.ignored.append("reasoning_effort")
            plan.effort = traits.efforts[0] if traits.efforts else ""
        return
    elif traits.thinking == "none":
        plan.ignored.append("reasoning_effort")
        plan.keeps_thinking = False
        return
    elif not _may_think(request, plan):
        _off(plan)
        if traits.thinking_off == "never":
            plan.thinking = _adaptive(traits)
        elif not traits.efforts:
            plan.ignored.append("reasoning_effort")
    elif traits.thinking == "adaptive":
        plan.thinking = _adaptive(traits)
    else:
        _plan_budget(effort, request.sampling, plan)
    if effort and effort != "none" and traits.efforts:
        plan.effort = _effort(effort, traits.efforts)
        off = not plan.keeps_thinking or plan.thinking == {"type": "between_tools"}
        if off and EFFORTS.index("high") < _rank(plan.effort):
            plan.effort = "high"  # more than that is refused while thinking is off


def _plan_own_thinking(request: chat_pb2.ChatRequest, plan: Plan, asked: Raw) -> None:
    """The client speaks Anthropic's own language: its word goes on, unless the call could not be answered then."""
    found = object_of(bytes(asked), "thinking")
    kind = type_of(found)
    if kind in ("enabled", "adaptive") and plan.traits.thinking_off != "never" and not _may_think(request, plan):
        plan.ignored.append("thinking")
        _off(plan)
        return
    plan.thinking = asked
    plan.keeps_thinking = kind in ("enabled", "adaptive", "between_tools")
    budget = found.get("budget_tokens")
    own_limit = request.sampling.HasField("max_tokens") or request.sampling.HasField("max_completion_tokens")
    if budget is not None and not own_limit and bytes(budget).isdigit():
        plan.max_tokens = max(plan.max_tokens, int(bytes(budget)) + 4096)


def _off(plan: Plan) -> None:
    off = plan.traits.thinking_off
    plan.keeps_thinking = off == "never"
    if off in ("disabled", "between_tools"):
        plan.thinking = {"type": off}
        plan.keeps_thinking = off == "between_tools"


def _may_think(request: chat_pb2.ChatRequest, plan: Plan) -> bool:
    if plan.traits.thinking == "budget" and (plan.json == "tool" or forces_call(request)):
        return False
    return not _unsigned_loop(request)


def _adaptive(traits: Traits) -> dict[str, Any]:
    return {"type": "adaptive", "display": "summarized"} if traits.thinking_text else {"type": "adaptive"}


def _plan_budget(effort: str, sampling: chat_pb2.Sampling, plan: Plan) -> None:
    budget = _BUDGETS.get(effort)
    if budget is None:
        raise CallError(
            Reason.INVALID_REQUEST,
            f"reasoning_effort {effort!r} is none of {', '.join(('none', *_BUDGETS))}.",
            param="reasoning_effort",
            code="invalid_value",
        )
    if plan.max_tokens <= _MIN_BUDGET:
        # The least budget must be below the limit, and the limit is the client's.
        plan.ignored.append("reasoning_effort")
        plan.keeps_thinking = False
        return
    budget = max(_MIN_BUDGET, min(budget, plan.max_tokens // 2))
    plan.thinking = {"type": "enabled", "budget_tokens": budget}


def _effort(word: str, known: tuple[str, ...]) -> str:
    """The word itself or, of those it ranks among, the next below that the model knows; an unknown word goes on."""
    if word in known:
        return word
    if word == "minimal":
        return known[0]
    if word not in EFFORTS:
        return word
    return [each for each in known if _rank(each) < _rank(word)][-1]


def _rank(word: str) -> int:
    return EFFORTS.index(word) if word in EFFORTS else -1


def _unsigned_loop(request: chat_pb2.ChatRequest) -> bool:
    """Whether the conversation stands in a loop of calls and results whose first turn came back without its thinking.

    The loop is one turn to the API, so the seal stands at its beginning.
    """
    first: chat_pb2.Message | None = None
    for message in reversed(request.messages):
        if message.role == chat_pb2.ROLE_ASSISTANT:
            if first is None and not message.tool_calls:
                return False
            first = message
        elif message.role == chat_pb2.ROLE_USER and first is not None:
            break
    return first is not None and not any(block.signature or block.redacted for block in first.reasoning)


def _plan_sampling(sampling: chat_pb2.Sampling, plan: Plan) -> None:
    """Temperature ends at 1 there, at 2 here; models that think or sample by themselves take none of it. What is left
    out at its default asks for nothing, so it is not ignored."""
    kind = plan.traits.sampling
    thinks = _thinks(plan)
    temperature = sampling.temperature if sampling.HasField("temperature") else None
    if kind == "one" and temperature == 1 and sampling.HasField("top_p"):
        temperature = None  # the default anyway, and so no reason to leave out the other
    if temperature is not None:
        if kind == "none" or thinks:
            if temperature != 1:
                plan.ignored.append("temperature")
        else:
            plan.temperature = min(temperature, 1.0)
            if temperature > 1:
                plan.ignored.append("temperature")
    top_p = sampling.top_p if sampling.HasField("top_p") else None
    if top_p is not None:
        if (
            kind == "none"
            or (kind == "one" and plan.temperature is not None)
            or (thinks and top_p < _LEAST_TOP_P)
        ):
            if top_p != 1:
                plan.ignored.append("top_p")
        else:
            plan.top_p = top_p
    top_k = plan.extra.get("top_k")
    if top_k is not None and bytes(top_k) != b"null":
        if kind == "none" or thinks:
            plan.ignored.append("top_k")
        else:
            plan.top_k = top_k


def _thinks(plan: Plan) -> bool:
    """Whether thinking was asked for in this call."""
    thinking = plan.thinking or {}
    kind = type_of(object_of(bytes(thinking), "thinking")) if isinstance(thinking, Raw) else thinking.get("type")
    return kind in ("enabled", "adaptive")

"""What becomes of each parameter of a chat completion request, and which of one request's are not honoured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from msgspec import Raw

from trestle.v1 import chat_pb2
from worker.families.anthropic.content import BREAKPOINT, HINTS
from worker.families.anthropic.encode import MERGED, PASSED, SERVICE_TIERS
from worker.families.anthropic.plan import Plan
from worker.families.anthropic.tools import TOOL_HINTS, choice_type
from worker.families.anthropic.turns import KEPT_BLOCKS
from worker.family import Fate
from worker.request_json import asking, object_of

PARAMS: Final[Mapping[str, Fate]] = {
    "audio": "rejected",
    "frequency_penalty": "ignored",
    "function_call": "translated",
    "functions": "translated",
    "logit_bias": "ignored",
    "logprobs": "ignored",
    "max_completion_tokens": "translated",
    "max_tokens": "honoured",
    "messages": "translated",
    "metadata": "translated",  # user_id; the rest is ignored
    "modalities": "rejected",  # where they are more than text
    "model": "honoured",
    "moderation": "ignored",
    "n": "honoured",  # by as many calls
    "parallel_tool_calls": "translated",
    "prediction": "ignored",
    "presence_penalty": "ignored",
    "prompt_cache_key": "ignored",
    "prompt_cache_options": "ignored",
    "prompt_cache_retention": "ignored",
    "reasoning_effort": "translated",
    "response_format": "translated",
    "safety_identifier": "translated",
    "seed": "ignored",
    "service_tier": "translated",
    "stop": "translated",
    "store": "ignored",
    "stream": "honoured",
    "stream_options": "honoured",  # include_usage; the rest is ignored
    "temperature": "translated",
    "tool_choice": "translated",
    "tools": "translated",
    "top_logprobs": "ignored",
    "top_p": "honoured",
    "user": "translated",
    "verbosity": "ignored",
    "web_search_options": "translated",
}
"""By the members of OpenAI's CreateChatCompletionRequest; docs/families/anthropic.md says how each is translated."""

_MESSAGE_KEYS: Final = frozenset({"cache_control", "is_error", "toolset_name", BREAKPOINT, KEPT_BLOCKS})
# What the decoder gives beside a message, and clients send back with it: it was for their eyes.
_OUR_OWN: Final = frozenset({"annotations", "citations"})


def ignored_params(request: chat_pb2.ChatRequest, plan: Plan) -> list[str]:
    """Names of what this request asks for and will not get, in the client's words: a member at the top by its name, one
    further down by its path, `messages[].name`. What is set to its default asks for nothing."""
    found = dict.fromkeys(plan.ignored)
    for name, asked in _IGNORED.items():
        if asked(request):
            found[name] = None
    found.update(dict.fromkeys(_extras(plan.extra)))
    if request.stream_options_json:
        options = object_of(request.stream_options_json, "stream_options")
        found.update(dict.fromkeys(f"stream_options.{name}" for name in asking(options)))
    if request.web_search_options_json:
        options = object_of(request.web_search_options_json, "web_search_options")
        found.update(
            dict.fromkeys(f"web_search_options.{name}" for name in asking(options) if name != "user_location")
        )
    if not plan.traits.forced_tools and choice_type(request) in ("any", "tool"):
        found["tool_choice"] = None
    for message in request.messages:
        found.update(dict.fromkeys(_in_message(message)))
    for tool in request.tools:
        if tool.HasField("function"):
            found.update(dict.fromkeys(_in_function(tool.function, plan, "tools[].function")))
            if tool.extra_json:
                found.update(dict.fromkeys(_unknown(tool.extra_json, TOOL_HINTS, "tools[]")))
    for function in request.functions:
        found.update(dict.fromkeys(_in_function(function, plan, "functions[]")))
    return list(found)


_IGNORED: Final[Mapping[str, Callable[[chat_pb2.ChatRequest], bool]]] = {
    "frequency_penalty": lambda request: request.sampling.frequency_penalty != 0,
    "presence_penalty": lambda request: request.sampling.presence_penalty != 0,
    "seed": lambda request: request.sampling.HasField("seed"),
    "logit_bias": lambda request: bool(request.sampling.logit_bias_json),
    "logprobs": lambda request: request.sampling.logprobs,
    "top_logprobs": lambda request: request.sampling.top_logprobs > 0,
    "stop": lambda request: any(not text or text.isspace() for text in request.sampling.stop),
    "verbosity": lambda request: bool(request.verbosity),
    "service_tier": lambda request: bool(request.service_tier) and request.service_tier not in SERVICE_TIERS,
}


def _extras(extra: Mapping[str, Raw]) -> Iterable[str]:
    for name in asking(extra):
        if name == "metadata":
            if object_of(bytes(extra[name]), name).keys() - {"user_id"}:
                yield name
        elif name not in PASSED and name not in MERGED:
            yield name


def _unknown(extra_json: bytes, known: frozenset[str], where: str) -> Iterable[str]:
    return (f"{where}.{name}" for name in asking(object_of(extra_json, where)) if name not in known)


def _in_message(message: chat_pb2.Message) -> Iterable[str]:
    if message.name and message.role != chat_pb2.ROLE_FUNCTION:
        yield "messages[].name"
    if message.extra_json:
        yield from _unknown(message.extra_json, _MESSAGE_KEYS | _OUR_OWN, "messages[]")
    for part in message.parts:
        arm = part.WhichOneof("part")
        if arm is not None and part.extra_json and arm in HINTS:
            yield from _unknown(part.extra_json, HINTS[arm] | {BREAKPOINT}, "messages[].content[]")
        if arm == "image" and part.image.detail not in ("", "auto"):
            yield "messages[].content[].image_url.detail"


def _in_function(function: chat_pb2.FunctionTool, plan: Plan, where: str) -> Iterable[str]:
    if function.strict and function.name not in plan.strict:
        yield f"{where}.strict"
    if function.extra_json:
        yield from _unknown(function.extra_json, TOOL_HINTS, where)

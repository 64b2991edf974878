"""What becomes of each parameter of a chat completion request, and which of one request's are not honoured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from trestle.v1 import chat_pb2
from worker.families.gemini.content import HINTS
from worker.families.gemini.encode import MOST_STOPS, SERVICE_TIERS
from worker.families.gemini.plan import Plan, camel, choice_of
from worker.families.gemini.tools import functions_of
from worker.families.gemini.turns import KEPT_PARTS
from worker.family import Fate
from worker.request_json import asking, object_of

PARAMS: Final[Mapping[str, Fate]] = {
    "audio": "rejected",
    "frequency_penalty": "ignored",  # but by models before 2.5, and by Vertex AI
    "function_call": "translated",
    "functions": "translated",
    "logit_bias": "ignored",
    "logprobs": "translated",
    "max_completion_tokens": "translated",
    "max_tokens": "translated",
    "messages": "translated",
    "metadata": "ignored",
    "modalities": "translated",  # text and image; audio is rejected
    "model": "honoured",
    "moderation": "ignored",
    "n": "honoured",  # by as many calls
    "parallel_tool_calls": "ignored",  # where it is false
    "prediction": "ignored",
    "presence_penalty": "ignored",  # but by models before 2.5, and by Vertex AI
    "prompt_cache_key": "ignored",
    "prompt_cache_options": "ignored",
    "prompt_cache_retention": "ignored",
    "reasoning_effort": "translated",
    "response_format": "translated",
    "safety_identifier": "ignored",
    "seed": "translated",
    "service_tier": "translated",
    "stop": "translated",
    "store": "ignored",
    "stream": "honoured",
    "stream_options": "honoured",  # include_usage; the rest is ignored
    "temperature": "honoured",  # where the model takes it
    "tool_choice": "translated",
    "tools": "translated",
    "top_logprobs": "translated",
    "top_p": "honoured",  # where the model takes it
    "user": "ignored",
    "verbosity": "ignored",
    "web_search_options": "translated",
}
"""By the members of OpenAI's CreateChatCompletionRequest; docs/families/gemini.md says how each is translated."""

# What the decoder gives beside a message, and clients send back with it: kept for us, or for their own eyes.
_MESSAGE_KEYS: Final = frozenset({KEPT_PARTS, "annotations", "is_error"})
_CALL_KEYS: Final = HINTS | {"extra_content"}


def ignored_params(request: chat_pb2.ChatRequest, plan: Plan) -> list[str]:
    """Names of what this request asks for and will not get, in the client's words: a member at the top by its name, one
    further down by its path, `messages[].name`. What is set to its default asks for nothing."""
    found = dict.fromkeys(plan.ignored)
    found.update((name, None) for name, asked in _IGNORED.items() if asked(request))
    if request.service_tier not in ("", "auto") and (plan.vertex or request.service_tier not in SERVICE_TIERS):
        found["service_tier"] = None
    if choice_of(request).WhichOneof("choice") is not None and not any(functions_of(request)):
        found["tool_choice" if request.HasField("tool_choice") else "function_call"] = None
    for where, data in (
        ("stream_options", request.stream_options_json),
        ("web_search_options", request.web_search_options_json),
    ):
        found.update((f"{where}.{name}", None) for name in asking(object_of(data, where)))
    if b"streamFunctionCallArguments" in bytes(plan.own.get("toolConfig", b"")):
        found["toolConfig.functionCallingConfig.streamFunctionCallArguments"] = None
    for message in request.messages:
        found.update(dict.fromkeys(_in_message(message)))
    for tool in request.tools:
        found.update(dict.fromkeys(_unknown(tool.extra_json, frozenset(), "tools[]")))
    for function in functions_of(request):
        where = "tools[].function" if request.tools else "functions[]"
        found.update(dict.fromkeys(_in_function(function, plan, where)))
    return list(found)


_IGNORED: Final[Mapping[str, Callable[[chat_pb2.ChatRequest], bool]]] = {
    "logit_bias": lambda request: bool(request.sampling.logit_bias_json),
    "parallel_tool_calls": lambda request: (
        request.HasField("parallel_tool_calls") and not request.parallel_tool_calls and bool(request.tools)
    ),
    "safety_identifier": lambda request: bool(request.safety_identifier),
    "stop": lambda request: not all(request.sampling.stop) or len(request.sampling.stop) > MOST_STOPS,
    "top_logprobs": lambda request: request.sampling.top_logprobs > 0 and not request.sampling.logprobs,
    "user": lambda request: bool(request.user),
    "verbosity": lambda request: bool(request.verbosity),
}


def _unknown(extra_json: bytes, known: frozenset[str], where: str) -> Iterable[str]:
    asked = asking(object_of(extra_json, where))
    return (f"{where}.{name}" for name in asked if name not in known and camel(name) not in known)


def _in_message(message: chat_pb2.Message) -> Iterable[str]:
    if message.name and message.role not in (chat_pb2.ROLE_FUNCTION, chat_pb2.ROLE_TOOL):
        yield "messages[].name"
    yield from _unknown(message.extra_json, _MESSAGE_KEYS, "messages[]")
    for call in message.tool_calls:
        yield from _unknown(call.extra_json, _CALL_KEYS, "messages[].tool_calls[]")
    for part in message.parts:
        arm = part.WhichOneof("part")
        if arm != "other_json":
            yield from _unknown(part.extra_json, HINTS, "messages[].content[]")
        if arm == "image" and part.image.detail not in ("", "auto"):
            yield "messages[].content[].image_url.detail"


def _in_function(function: chat_pb2.FunctionTool, plan: Plan, where: str) -> Iterable[str]:
    if function.strict and not plan.traits.validated_calls:
        yield f"{where}.strict"
    yield from _unknown(function.extra_json, frozenset(), where)

"""What becomes of each parameter of a chat completion request, and which of one request's are not honoured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from trestle.openjson import members
from trestle.v1 import chat_pb2, embedding_pb2
from worker.family import Fate
from worker.request_json import VECTOR_FORMS

PARAMS: Final[Mapping[str, Fate]] = {
    "audio": "ignored",
    "echo": "honoured",  # the family's own: its options
    "frequency_penalty": "ignored",
    "function_call": "honoured",
    "functions": "honoured",
    "logit_bias": "ignored",
    "logprobs": "honoured",
    "max_completion_tokens": "honoured",
    "max_tokens": "honoured",
    "messages": "honoured",
    "metadata": "honoured",  # it is kept with stored answers only, and none is stored
    "modalities": "ignored",  # where they are more than text
    "model": "honoured",
    "moderation": "ignored",
    "n": "honoured",
    "parallel_tool_calls": "honoured",
    "prediction": "ignored",
    "presence_penalty": "ignored",
    "prompt_cache_key": "ignored",
    "prompt_cache_options": "ignored",
    "prompt_cache_retention": "ignored",
    "reasoning_effort": "honoured",
    "response_format": "honoured",
    "safety_identifier": "honoured",  # there are no abuse checks to tell it to
    "seed": "honoured",  # the same request always has the same answer
    "service_tier": "ignored",  # where it is another than the default
    "stop": "honoured",
    "store": "ignored",
    "stream": "honoured",
    "stream_options": "honoured",  # include_usage; the rest is ignored
    "temperature": "ignored",  # where it asks for chance
    "tool_choice": "honoured",
    "tools": "honoured",
    "top_logprobs": "honoured",
    "top_p": "ignored",
    "user": "honoured",  # as safety_identifier
    "verbosity": "ignored",
    "web_search_options": "ignored",
}
"""By the members of OpenAI's CreateChatCompletionRequest, and `echo`; docs/echo.md says more."""

_IDLE: Final = frozenset({b"null", b"false"})
_TIERS: Final = frozenset({"", "auto", "default"})
# A temperature of 0 asks for what an echo does anyhow; 1 is the default, as for top_p.
_TEMPERATURES: Final = (0.0, 1.0)

_ASKED: Final[Mapping[str, Callable[[chat_pb2.ChatRequest], bool]]] = {
    "audio": lambda request: bool(request.audio_json),
    "modalities": lambda request: any(each != "text" for each in request.modalities),
    "service_tier": lambda request: request.service_tier not in _TIERS,
    "verbosity": lambda request: bool(request.verbosity),
    "web_search_options": lambda request: bool(request.web_search_options_json),
}
_ASKED_OF_SAMPLING: Final[Mapping[str, Callable[[chat_pb2.Sampling], bool]]] = {
    "frequency_penalty": lambda sampling: sampling.frequency_penalty != 0,
    "logit_bias": lambda sampling: bool(sampling.logit_bias_json),
    "presence_penalty": lambda sampling: sampling.presence_penalty != 0,
    "temperature": lambda sampling: sampling.HasField("temperature") and sampling.temperature not in _TEMPERATURES,
    "top_p": lambda sampling: sampling.HasField("top_p") and sampling.top_p != 1,
}


def ignored_params(request: chat_pb2.ChatRequest) -> list[str]:
    """Names of what this request asks for and will not get, in the client's words; what is set to its default asks for
    nothing."""
    found = [name for name, asked in _ASKED.items() if asked(request)]
    if request.HasField("sampling"):
        sampling = request.sampling
        found += [name for name, asked_of in _ASKED_OF_SAMPLING.items() if asked_of(sampling)]
    if request.stream_options_json:
        found += [f"stream_options.{name}" for name in _asking(request.stream_options_json)]
    if request.extra_json:
        found += [name for name in _asking(request.extra_json) if PARAMS.get(name) != "honoured"]
    return found


def ignored_embed_params(request: embedding_pb2.EmbedRequest) -> list[str]:
    """As `ignored_params`: `user`, for there is nobody to tell, forms and members that nothing here knows."""
    found = ["user"] if request.user else []
    if request.encoding_format not in VECTOR_FORMS:
        found.append("encoding_format")
    return found + [name for name in _asking(request.extra_json) if name != "echo"] if request.extra_json else found


def _asking(extra_json: bytes) -> Iterable[str]:
    """Names of members that ask for something: not null, not false. What cannot be read is left for the answer to
    refuse."""
    try:
        return [name for name, value in members(extra_json).items() if bytes(value) not in _IDLE]
    except msgspec.DecodeError:
        return ()

"""The echo family's face to the worker. Pure."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2
from worker.families.echo.answer import chat_steps
from worker.families.echo.embed import embed
from worker.families.echo.moderate import moderate
from worker.families.echo.options import MAX_TOKENS, MODEL, options_of
from worker.families.echo.params import PARAMS, ignored_embed_params, ignored_params
from worker.families.echo.text import text_steps
from worker.family import Fate, Wait


class EchoFamily:
    """Implements `worker.family.LocalFamily`. The same request has the same answer but for its `created`.

    now: the clock, in Unix seconds. params: what becomes of each parameter of a chat completion.
    """

    name = "echo"
    params: Mapping[str, Fate] = PARAMS

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def ignored_params(self, request: chat_pb2.ChatRequest) -> list[str]:
        """Names of what will not be honoured."""
        return ignored_params(request)

    def answer(self, request: chat_pb2.ChatRequest) -> Iterator[chat_pb2.ChatResponse | Wait]:
        """Raises `CallError`: for options that are none, for what it cannot do, and where it is asked to fail."""
        return chat_steps(request, options_of(request.model, request.extra_json), self._now())

    def complete(
        self, request: completion_pb2.CompleteRequest
    ) -> Iterator[completion_pb2.CompleteResponse | Wait]:
        """Raises `CallError` as `answer`."""
        return text_steps(request, self._now())

    def ignored_embed_params(self, request: embedding_pb2.EmbedRequest) -> list[str]:
        return ignored_embed_params(request)

    def embed(self, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
        """Raises `CallError` as `answer`."""
        return embed(request)

    def moderate(self, request: moderation_pb2.ModerateRequest) -> moderation_pb2.ModerateResponse:
        """Raises `CallError` as `answer`."""
        return moderate(request)

    def list_models(self) -> Iterable[model_pb2.Model]:
        """One, which says what it is."""
        return (
            model_pb2.Model(
                id=MODEL,
                owned_by="trestle-echo",
                max_output_tokens=MAX_TOKENS,
                capabilities=(
                    model_pb2.CAPABILITY_CHAT,
                    model_pb2.CAPABILITY_EMBED,
                    model_pb2.CAPABILITY_TOOLS,
                    model_pb2.CAPABILITY_REASONING,
                    model_pb2.CAPABILITY_JSON_SCHEMA,
                    model_pb2.CAPABILITY_COMPLETE,
                    model_pb2.CAPABILITY_MODERATE,
                ),
                takes_options=True,
            ),
        )

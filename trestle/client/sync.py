"""The client for code without asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import grpc

from trestle.client.answers import ChatAnswer, Embeddings, Moderation, TextAnswer, chat_answer, text_answer
from trestle.client.errors import failure
from trestle.client.link import RETRIES, TIMEOUT, CallOptions, Link, Metadata, Tls, ignored_params
from trestle.client.methods import Methods, as_stream, as_whole
from trestle.client.stream import SyncStream
from trestle.fold import AnswerFold, TextFold
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2

SyncChatStream: TypeAlias = SyncStream[chat_pb2.ChatChunk, ChatAnswer]
SyncTextStream: TypeAlias = SyncStream[completion_pb2.CompletionChunk, TextAnswer]


class SyncClient:
    """`Client` without asyncio: the same arguments, methods and errors. Threads may share it. Use as a context manager,
    or `close` it."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        token: str | Callable[[], str] = "",
        timeout: float | None = TIMEOUT,
        retries: int = RETRIES,
        metadata: Metadata = (),
        options: Mapping[str, int | str] | None = None,
    ) -> None:
        link = self._link = Link(
            target, tls=tls, token=token, timeout=timeout, retries=retries, metadata=metadata, options=options or {}
        )
        self._channel = (
            grpc.insecure_channel(link.target, link.options)
            if link.credentials is None
            else grpc.secure_channel(link.target, link.credentials, link.options)
        )
        self._methods = Methods(self._channel)

    def chat(self, request: chat_pb2.ChatRequest, **options: Unpack[CallOptions]) -> SyncChatStream:
        """A chat completion as it comes. The call begins at once."""
        call = self._methods.chat_stream(as_stream(request), **self._link.call(options))
        return SyncStream(call, AnswerFold(), chat_answer)

    def complete(self, request: chat_pb2.ChatRequest, **options: Unpack[CallOptions]) -> ChatAnswer:
        """A chat completion in one piece."""
        fold = AnswerFold()
        response, ignored = self._whole(self._methods.chat, as_whole(request), options)
        fold.feed(response.chunks)
        return chat_answer(fold, ignored)

    def text(self, request: completion_pb2.CompleteRequest, **options: Unpack[CallOptions]) -> SyncTextStream:
        """A legacy text completion as it comes. The call begins at once."""
        call = self._methods.text_stream(as_stream(request), **self._link.call(options))
        return SyncStream(call, TextFold(), text_answer)

    def complete_text(
        self, request: completion_pb2.CompleteRequest, **options: Unpack[CallOptions]
    ) -> TextAnswer:
        """A legacy text completion in one piece."""
        fold = TextFold()
        response, ignored = self._whole(self._methods.text, as_whole(request), options)
        fold.feed(response.chunks)
        return text_answer(fold, ignored)

    def embed(self, request: embedding_pb2.EmbedRequest, **options: Unpack[CallOptions]) -> Embeddings:
        """Vectors for texts."""
        return Embeddings(*self._whole(self._methods.embed, request, options))

    def moderate(self, request: moderation_pb2.ModerateRequest, **options: Unpack[CallOptions]) -> Moderation:
        """Judgements on content."""
        return Moderation(*self._whole(self._methods.moderate, request, options))

    def models(self, **options: Unpack[CallOptions]) -> list[model_pb2.Model]:
        """The models that the worker can reach now."""
        response, _ = self._whole(self._methods.models, model_pb2.ListModelsRequest(), options)
        return list(response.models)

    def close(self) -> None:
        """Ends the calls that still run, and the connections."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _whole(self, method: Any, request: Any, options: CallOptions) -> tuple[Any, Sequence[str]]:
        """The only response, and the parameters that were ignored for it."""
        try:
            response, call = method.with_call(request, **self._link.call(options))
        except grpc.RpcError as error:
            raise failure(error) from None
        return response, ignored_params(call.initial_metadata())

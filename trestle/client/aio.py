"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack

import grpc

from trestle.client.answers import ChatAnswer, Embeddings, Moderation, TextAnswer, chat_answer, text_answer
from trestle.client.errors import closed, failure
from trestle.client.link import RETRIES, TIMEOUT, CallOptions, Link, Metadata, Tls, ignored_params
from trestle.client.methods import Methods, as_stream, as_whole
from trestle.client.stream import Stream, raise_if_closed
from trestle.fold import AnswerFold, TextFold
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2

ChatStream: TypeAlias = Stream[chat_pb2.ChatChunk, ChatAnswer]
TextStream: TypeAlias = Stream[completion_pb2.CompletionChunk, TextAnswer]


class Client:
    """A worker's methods, for asyncio. Use as an async context manager, or `close` it; one event loop is its home.

    target: any of gRPC's; `dns:///worker:50051` spreads the calls over all addresses behind the name. tls: absent means
    plaintext. token: a bearer token, or what gives one, asked for each call; without TLS for loopback only. timeout:
    seconds for a call that does not say its own; None for no end. retries: how often, 0 to 4, a call is tried again
    that failed as UNAVAILABLE before anything of its answer came. metadata: sent with every call. options: of the
    channel, beside or instead of our own.

    Raises ValueError for what contradicts itself, OSError for a file that cannot be read; its methods raise
    `CallError`.
    """

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
        self._link = Link(
            target, tls=tls, token=token, timeout=timeout, retries=retries, metadata=metadata, options=options or {}
        )
        self._channel: grpc.aio.Channel | None = None
        self._known: Methods | None = None

    @property
    def _methods(self) -> Methods:
        """Made with the first call: a channel belongs to the loop it is made in. Raises RuntimeError without one."""
        asyncio.get_running_loop()
        if self._known is None:
            link = self._link
            self._channel = (
                grpc.aio.insecure_channel(link.target, link.options)
                if link.credentials is None
                else grpc.aio.secure_channel(link.target, link.credentials, link.options)
            )
            self._known = Methods(self._channel)
        return self._known

    def chat(self, request: chat_pb2.ChatRequest, **options: Unpack[CallOptions]) -> ChatStream:
        """A chat completion as it comes. The call begins at once."""
        call = self._methods.chat_stream(as_stream(request), **self._link.call(options))
        return Stream(call, AnswerFold(), chat_answer)

    async def complete(self, request: chat_pb2.ChatRequest, **options: Unpack[CallOptions]) -> ChatAnswer:
        """A chat completion in one piece."""
        fold = AnswerFold()
        response, ignored = await self._whole(self._methods.chat, as_whole(request), options)
        fold.feed(response.chunks)
        return chat_answer(fold, ignored)

    def text(self, request: completion_pb2.CompleteRequest, **options: Unpack[CallOptions]) -> TextStream:
        """A legacy text completion as it comes. The call begins at once."""
        call = self._methods.text_stream(as_stream(request), **self._link.call(options))
        return Stream(call, TextFold(), text_answer)

    async def complete_text(
        self, request: completion_pb2.CompleteRequest, **options: Unpack[CallOptions]
    ) -> TextAnswer:
        """A legacy text completion in one piece."""
        fold = TextFold()
        response, ignored = await self._whole(self._methods.text, as_whole(request), options)
        fold.feed(response.chunks)
        return text_answer(fold, ignored)

    async def embed(self, request: embedding_pb2.EmbedRequest, **options: Unpack[CallOptions]) -> Embeddings:
        """Vectors for texts."""
        return Embeddings(*await self._whole(self._methods.embed, request, options))

    async def moderate(self, request: moderation_pb2.ModerateRequest, **options: Unpack[CallOptions]) -> Moderation:
        """Judgements on content."""
        return Moderation(*await self._whole(self._methods.moderate, request, options))

    async def models(self, **options: Unpack[CallOptions]) -> list[model_pb2.Model]:
        """The models that the worker can reach now."""
        response, _ = await self._whole(self._methods.models, model_pb2.ListModelsRequest(), options)
        return list(response.models)

    async def close(self, grace: float | None = None) -> None:
        """Ends the calls that still run, after `grace` seconds if there are such, and the connections."""
        if self._channel is not None:
            await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _whole(self, method: Any, request: Any, options: CallOptions) -> tuple[Any, Sequence[str]]:
        """The only response, and the parameters that were ignored for it."""
        call = method(request, **self._link.call(options))
        try:
            response = await call
            return response, ignored_params(await call.initial_metadata())
        except grpc.aio.AioRpcError as error:
            raise failure(error) from None
        except asyncio.CancelledError:
            raise_if_closed(closed())
            raise
        finally:
            call.cancel()

"""The service of a family that answers by itself: its steps are sent as they come."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator

from trestle.errors import CallError
from trestle.rpc.call import Call
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2
from worker.calls import CallMetadata, Calls, need, note_ignored
from worker.family import LocalFamily, Wait
from worker.out import R


class LocalService:
    """Implements the contract for one local family. calls: those that are open."""

    def __init__(self, family: LocalFamily, calls: Calls) -> None:
        self._calls = calls
        self._family = family

    async def Chat(self, request: chat_pb2.ChatRequest, context: Call) -> chat_pb2.ChatResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._chat(request, context, call), context, call)

    async def _chat(
        self, request: chat_pb2.ChatRequest, context: Call, call: CallMetadata
    ) -> chat_pb2.ChatResponse:
        need(bool(request.model), "model")
        need(bool(request.messages), "messages")
        note_ignored(self._family.ignored_params(request), self._family.name, call)
        await call.begin()
        steps = self._family.answer(request)
        whole = None if request.stream else chat_pb2.ChatResponse()
        return await _play(steps, context, whole, call)

    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: Call
    ) -> completion_pb2.CompleteResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._complete(request, context, call), context, call)

    async def _complete(
        self, request: completion_pb2.CompleteRequest, context: Call, call: CallMetadata
    ) -> completion_pb2.CompleteResponse:
        need(bool(request.model), "model")
        steps = self._family.complete(request)
        whole = None if request.stream else completion_pb2.CompleteResponse()
        return await _play(steps, context, whole, call)

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Call
    ) -> embedding_pb2.EmbedResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._embed(request, call), context, call)

    async def _embed(self, request: embedding_pb2.EmbedRequest, call: CallMetadata) -> embedding_pb2.EmbedResponse:
        need(bool(request.model), "model")
        need(bool(request.inputs), "input")
        note_ignored(self._family.ignored_embed_params(request), self._family.name, call)
        await call.begin()
        response = self._family.embed(request)
        call.usage = response.usage
        return response

    async def Moderate(
        self, request: moderation_pb2.ModerateRequest, context: Call
    ) -> moderation_pb2.ModerateResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._moderate(request, call), context, call)

    async def _moderate(
        self, request: moderation_pb2.ModerateRequest, call: CallMetadata
    ) -> moderation_pb2.ModerateResponse:
        need(bool(request.input_json), "input")
        await call.begin()
        return self._family.moderate(request)

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Call
    ) -> model_pb2.ListModelsResponse:
        return model_pb2.ListModelsResponse(models=self._family.list_models())


async def _play(steps: Iterator[R | Wait], context: Call, whole: R | None, call: CallMetadata) -> R:
    """Sends what the steps say, up to the last response, which it returns; where there is a `whole` to gather it in,
    that is all of it."""
    held: R | None = None
    try:
        for step in steps:
            if isinstance(step, Wait):
                if held is not None:
                    await context.write(held.SerializeToString())
                    held = None
                await _pass(step.seconds)
                continue
            if step.chunks and step.chunks[-1].HasField("usage"):
                call.usage = step.chunks[-1].usage
            if whole is not None:
                whole.chunks.extend(step.chunks)
                continue
            if held is not None:
                await context.write(held.SerializeToString())
            held = step
    except CallError:
        if held is not None:
            await context.write(held.SerializeToString())
        raise
    last = held if whole is None else whole
    assert last is not None, "an answer ends with a response"
    return last


async def _pass(seconds: float) -> None:
    if math.isinf(seconds):
        await asyncio.get_running_loop().create_future()  # until the caller gives up
    else:
        await asyncio.sleep(seconds)

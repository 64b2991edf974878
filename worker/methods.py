"""The contract's methods as the server asks for them.

Every method returns its last response, also those that stream: what comes before is written to the call, ready bytes.
So the last response leaves together with the status, in one write (docs/decisions/0008).
"""

from __future__ import annotations

from typing import Final, Protocol

from google.protobuf import message_factory

from trestle.rpc.call import Call
from trestle.rpc.method import Method
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2, worker_service_pb2

_SERVICE: Final = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"]


class Servicer(Protocol):
    """Implements the contract. The last response of each method is returned; those before it are written to the context
    as bytes."""

    async def Chat(self, request: chat_pb2.ChatRequest, context: Call) -> chat_pb2.ChatResponse: ...
    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: Call
    ) -> completion_pb2.CompleteResponse: ...
    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Call
    ) -> embedding_pb2.EmbedResponse: ...
    async def Moderate(
        self, request: moderation_pb2.ModerateRequest, context: Call
    ) -> moderation_pb2.ModerateResponse: ...
    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Call
    ) -> model_pb2.ListModelsResponse: ...


def methods(servicer: Servicer) -> dict[str, Method]:
    """By their paths."""
    return {
        f"/{_SERVICE.full_name}/{method.name}": Method(
            getattr(servicer, method.name),
            message_factory.GetMessageClass(method.input_type).FromString,
            message_factory.GetMessageClass(method.output_type).SerializeToString,
        )
        for method in _SERVICE.methods
    }

"""The contract's methods as gRPC's server asks for them, at the least cost to each call.

Every method is given to gRPC as one that returns a response, also those that stream: what comes before the last
response is written to the context, ready bytes, and the last one is returned. gRPC sends what is returned together with
the call's status, in one step instead of two, and each step costs a thread's turn (docs/performance.md). On the wire
nothing differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import grpc
from google.protobuf import message_factory

from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2, worker_service_pb2
from worker.calls import Context

_SERVICE: Final = worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"]


class Servicer(Protocol):
    """Implements the contract. The last response of each method is returned; those before it are written to the context
    as bytes."""

    async def Chat(self, request: chat_pb2.ChatRequest, context: Context) -> chat_pb2.ChatResponse: ...
    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: Context
    ) -> completion_pb2.CompleteResponse: ...
    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Context
    ) -> embedding_pb2.EmbedResponse: ...
    async def Moderate(
        self, request: moderation_pb2.ModerateRequest, context: Context
    ) -> moderation_pb2.ModerateResponse: ...
    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Context
    ) -> model_pb2.ListModelsResponse: ...


class Methods(grpc.GenericRpcHandler):
    """The methods of one servicer, by their names on the wire."""

    def __init__(self, servicer: Servicer) -> None:
        self._handlers: Mapping[str, Any] = {
            f"/{_SERVICE.full_name}/{method.name}": grpc.unary_unary_rpc_method_handler(
                getattr(servicer, method.name),
                request_deserializer=message_factory.GetMessageClass(method.input_type).FromString,
                response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
            )
            for method in _SERVICE.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The method's handler, None for one that is not of the contract."""
        details: Any = handler_call_details
        return self._handlers.get(details.method)

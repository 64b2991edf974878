"""The worker's methods on a channel of either kind, and the two forms in which a request can be asked."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf.message import Message

from trestle.client.link import SERVICE
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2

R = TypeVar("R", chat_pb2.ChatRequest, completion_pb2.CompleteRequest)


class Methods:
    """What can be called on this channel. An answer in one piece is one response on the same wire, so that the unary
    calls of gRPC, which cost less, serve for it."""

    def __init__(self, channel: Any) -> None:
        def method(kind: Any, name: str, response: type[Message]) -> Any:
            return kind(
                f"/{SERVICE}/{name}",
                request_serializer=lambda request: request.SerializeToString(),
                response_deserializer=response.FromString,
            )

        self.chat_stream: Any = method(channel.unary_stream, "Chat", chat_pb2.ChatResponse)
        self.chat: Any = method(channel.unary_unary, "Chat", chat_pb2.ChatResponse)
        self.text_stream: Any = method(channel.unary_stream, "Complete", completion_pb2.CompleteResponse)
        self.text: Any = method(channel.unary_unary, "Complete", completion_pb2.CompleteResponse)
        self.embed: Any = method(channel.unary_unary, "Embed", embedding_pb2.EmbedResponse)
        self.moderate: Any = method(channel.unary_unary, "Moderate", moderation_pb2.ModerateResponse)
        self.models: Any = method(channel.unary_unary, "ListModels", model_pb2.ListModelsResponse)


def as_stream(request: R) -> R:
    """A copy that asks for the answer as it comes. The caller's own stays as it is, and may be changed meanwhile."""
    return _asked(request, stream=True)


def as_whole(request: R) -> R:
    """A copy that asks for the answer in one piece."""
    return _asked(request, stream=False)


def _asked(request: R, *, stream: bool) -> R:
    copy = type(request)()
    copy.CopyFrom(request)
    copy.stream = stream
    return copy

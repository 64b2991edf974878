"""A worker's client, for services that skip HTTP: typed requests in, typed answers and errors out.

    async with Client("dns:///worker:50051") as client:
        async for chunk in client.chat(chat_request("echo", "Hello")):
            print(chunk.text, end="")

`SyncClient` is the same without asyncio. Needs grpcio, protobuf and googleapis-common-protos only.
"""

from trestle.client.aio import ChatStream, Client, TextStream
from trestle.client.answers import ChatAnswer, Embeddings, Moderation, TextAnswer
from trestle.client.errors import (
    Cancelled,
    ContentRejected,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    TimedOut,
    Truncated,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unsupported,
    UpstreamFailed,
    WorkerFailed,
)
from trestle.client.link import CallOptions, Tls
from trestle.client.requests import (
    assistant,
    chat_request,
    embed_request,
    function,
    moderate_request,
    system,
    text_request,
    tool_result,
    user,
)
from trestle.client.sync import SyncChatStream, SyncClient, SyncTextStream
from trestle.errors import CallError, Reason
from trestle.v1.chat_pb2 import ChatChunk, ChatRequest, Message, Sampling, Tool, Usage
from trestle.v1.completion_pb2 import CompleteRequest, CompletionChunk
from trestle.v1.embedding_pb2 import EmbedRequest
from trestle.v1.model_pb2 import Model
from trestle.v1.moderation_pb2 import ModerateRequest

__all__ = [
    "CallError",
    "CallOptions",
    "Cancelled",
    "ChatAnswer",
    "ChatChunk",
    "ChatRequest",
    "ChatStream",
    "Client",
    "CompleteRequest",
    "CompletionChunk",
    "ContentRejected",
    "ContextTooLong",
    "EmbedRequest",
    "Embeddings",
    "InvalidRequest",
    "Message",
    "Model",
    "ModelNotFound",
    "ModerateRequest",
    "Moderation",
    "PermissionDenied",
    "RateLimited",
    "Reason",
    "Sampling",
    "SyncChatStream",
    "SyncClient",
    "SyncTextStream",
    "TextAnswer",
    "TextStream",
    "TimedOut",
    "Tls",
    "Tool",
    "Truncated",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unsupported",
    "UpstreamFailed",
    "Usage",
    "WorkerFailed",
    "assistant",
    "chat_request",
    "embed_request",
    "function",
    "moderate_request",
    "system",
    "text_request",
    "tool_result",
    "user",
]

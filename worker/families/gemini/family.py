"""The gemini family's face to the worker: encode, decode, errors, embeddings and the model list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, embedding_pb2, model_pb2
from worker.families.gemini import embed, errors, wire
from worker.families.gemini.decode import GeminiChatDecoder
from worker.families.gemini.encode import encode_chat
from worker.families.gemini.models import traits_of
from worker.families.gemini.params import PARAMS, ignored_params
from worker.families.gemini.plan import make_plan
from worker.families.gemini.settings import GeminiUpstream
from worker.family import ChatDecoder, Fate, HttpRequest, TokenAccount, Upstream

_CHATS: Final = "generateContent"
_EMBEDS: Final = frozenset({"embedContent", "batchEmbedContents"})
_JSON: Final = "application/json"


class GeminiFamily:
    """Implements `worker.family.RemoteFamily`, `Embeds`, `SplitsEmbeddings` and `ShowsTokens`. params: what becomes of
    each parameter of a chat completion."""

    name = "gemini"
    upstream_type = GeminiUpstream
    # The API has candidateCount, but most of its newer models refuse it.
    native_n = False
    params: Mapping[str, Fate] = PARAMS

    def ignored_params(self, request: chat_pb2.ChatRequest, upstream: Upstream[GeminiUpstream]) -> list[str]:
        """Raises `CallError` as `encode_chat` does, where it is already clear."""
        return ignored_params(request, make_plan(request, upstream.settings))

    def encode_chat(self, request: chat_pb2.ChatRequest, upstream: Upstream[GeminiUpstream]) -> HttpRequest:
        """Raises `CallError` (UNSUPPORTED, INVALID_REQUEST) naming the parameter it cannot carry."""
        body = encode_chat(request, make_plan(request, upstream.settings))
        if request.stream:
            url = upstream.settings.url(request.model, "streamGenerateContent") + "?alt=sse"
            return HttpRequest(url, _headers(upstream, "text/event-stream"), body)
        return HttpRequest(upstream.settings.url(request.model, _CHATS), _headers(upstream), body)

    def chat_decoder(self, request: chat_pb2.ChatRequest, upstream: Upstream[GeminiUpstream]) -> ChatDecoder:
        return GeminiChatDecoder(request, make_plan(request, upstream.settings), upstream.name)

    def decode_error(
        self, status: int, headers: Mapping[str, str], body: bytes, upstream: Upstream[GeminiUpstream]
    ) -> CallError:
        return errors.decode_error(status, headers, body, upstream.name)

    def encode_list_models(self, upstream: Upstream[GeminiUpstream]) -> HttpRequest:
        settings = upstream.settings
        listed = "publishers/google/models?pageSize=200" if settings.vertex else "models?pageSize=1000"
        return HttpRequest(f"{settings.root}/{listed}", _headers(upstream), method="GET")

    def decode_list_models(self, body: bytes) -> Iterable[model_pb2.Model]:
        """Those that chat or embed, by their names without `models/`. Raises `CallError` (UPSTREAM_PROTOCOL)."""
        try:
            found = wire.MODELS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CallError(Reason.UPSTREAM_PROTOCOL, "The upstream's model list cannot be read.") from None
        models = (_model(entry) for entry in (*(found.models or ()), *(found.publisher_models or ())))
        return [model for model in models if model.capabilities]

    def ignored_embed_params(
        self, request: embedding_pb2.EmbedRequest, upstream: Upstream[GeminiUpstream]
    ) -> list[str]:
        """`user`, and members that are none of Gemini's own."""
        return embed.ignored_params(request)

    def split_embed(
        self, request: embedding_pb2.EmbedRequest, upstream: Upstream[GeminiUpstream]
    ) -> list[embedding_pb2.EmbedRequest]:
        """Raises `CallError` naming the input it cannot carry."""
        return embed.split_embed(request, upstream.settings)

    def encode_embed(self, request: embedding_pb2.EmbedRequest, upstream: Upstream[GeminiUpstream]) -> HttpRequest:
        """Raises `CallError` naming the parameter it cannot carry."""
        url, body = embed.encode_embed(request, upstream.settings)
        return HttpRequest(url, _headers(upstream), body)

    def decode_embed(self, body: bytes, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
        """One embedding for each input, in order. Raises `CallError` (UPSTREAM_PROTOCOL)."""
        return embed.decode_embed(body, request)

    def token_account(self, upstream: Upstream[GeminiUpstream]) -> TokenAccount | None:
        return upstream.settings.account


def _headers(upstream: Upstream[GeminiUpstream], accept: str = _JSON) -> dict[str, str]:
    settings = upstream.settings
    headers = {"content-type": _JSON, "accept": accept}
    if upstream.credential:
        if settings.auth == "bearer":
            headers["authorization"] = f"Bearer {upstream.credential}"
        else:
            headers["x-goog-api-key"] = upstream.credential
    headers.update({name.lower(): value for name, value in settings.headers.items()})
    return headers


def _model(entry: wire.ModelEntry) -> model_pb2.Model:
    """A model with what it can do; nothing for one that neither chats nor embeds."""
    name = entry.name.rpartition("/")[2]
    methods = entry.supported_generation_methods
    if methods is None:  # Vertex AI does not say
        methods = [] if not name.startswith("gemini") else ["embedContent"] if "embedding" in name else [_CHATS]
    capabilities: list[model_pb2.Capability.ValueType] = []
    if _CHATS in methods:
        capabilities += [model_pb2.CAPABILITY_CHAT]
        if name.startswith("gemini"):
            capabilities += [
                model_pb2.CAPABILITY_TOOLS,
                model_pb2.CAPABILITY_VISION,
                model_pb2.CAPABILITY_JSON_SCHEMA,
            ]
        if traits_of(name).thinking != "none":
            capabilities.append(model_pb2.CAPABILITY_REASONING)
    if _EMBEDS.intersection(methods):
        capabilities.append(model_pb2.CAPABILITY_EMBED)
    return model_pb2.Model(
        id=entry.name if entry.name.startswith("tunedModels/") else name,
        owned_by="google",
        context_tokens=_limit(entry.input_token_limit),
        max_output_tokens=_limit(entry.output_token_limit),
        capabilities=capabilities,
    )


def _limit(told: wire.Number | None) -> int:
    """A limit in tokens; zero for none, or one that is no count."""
    return int(told) if told is not None and 0 <= told < 2**32 else 0

"""The openai family's face to the worker: encode, decode, errors and the model list. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import quote, urlencode

import msgspec

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2
from worker.families.openai import errors, wire
from worker.families.openai.decode import OpenAIChatDecoder
from worker.families.openai.embed import decode_embed, decode_moderation, encode_embed, encode_moderation
from worker.families.openai.encode import Names, encode_chat
from worker.families.openai.params import PARAMS
from worker.families.openai.text import OpenAITextDecoder, encode_completion
from worker.family import ChatDecoder, CompletionDecoder, Fate, HttpRequest, Upstream, UpstreamSettings


class OpenAIUpstream(UpstreamSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An OpenAI-compatible endpoint.

    base_url: up to and with the version, `https://api.openai.com/v1`. max_tokens_field: the one name that the
    endpoint knows for the token limit (`max_tokens` or `max_completion_tokens`); empty sends the name the client
    used. reasoning_field: the name by which it takes earlier reasoning in messages (Groq: `reasoning`); empty where
    it takes none (Mistral). stream_usage: whether its streams may be asked for usage (`stream_options`).
    credential_header: where the credential goes; in `authorization` it is a Bearer token, in any other header it
    stands by itself. query: added to every URL. deployments: the model stands in the path,
    `/deployments/MODEL/chat/completions` (Azure OpenAI).
    """

    max_tokens_field: str = ""
    reasoning_field: str = "reasoning_content"
    stream_usage: bool = True
    credential_header: str = "authorization"
    query: dict[str, str] = {}
    deployments: bool = False


class OpenAIFamily:
    """Implements `worker.family.RemoteFamily`. params: what becomes of each parameter of a chat completion."""

    name = "openai"
    upstream_type = OpenAIUpstream
    native_n = True
    params: Mapping[str, Fate] = PARAMS

    def ignored_params(self, request: chat_pb2.ChatRequest, upstream: Upstream[OpenAIUpstream]) -> list[str]:
        """What is not understood is forwarded, and the upstream judges it; but for earlier reasoning, where it is known
        to take none."""
        left_out = not upstream.settings.reasoning_field and any(message.reasoning for message in request.messages)
        return ["messages[].reasoning_content"] if left_out else []

    def encode_chat(self, request: chat_pb2.ChatRequest, upstream: Upstream[OpenAIUpstream]) -> HttpRequest:
        """Raises `CallError` (INVALID_REQUEST) for a message without a role and the like."""
        settings = upstream.settings
        names = Names(settings.max_tokens_field, settings.reasoning_field)
        body = encode_chat(request, names, settings.stream_usage)
        headers = _headers(upstream, "text/event-stream" if request.stream else "application/json")
        return HttpRequest(_url(upstream, "/chat/completions", request.model), headers, body)

    def chat_decoder(self, request: chat_pb2.ChatRequest, upstream: Upstream[OpenAIUpstream]) -> ChatDecoder:
        return OpenAIChatDecoder(request, upstream.name)

    def decode_error(
        self, status: int, headers: Mapping[str, str], body: bytes, upstream: Upstream[OpenAIUpstream]
    ) -> CallError:
        return errors.decode_error(status, headers, body, upstream.name)

    def encode_completion(
        self, request: completion_pb2.CompleteRequest, upstream: Upstream[OpenAIUpstream]
    ) -> HttpRequest:
        body = encode_completion(request, upstream.settings.stream_usage)
        headers = _headers(upstream, "text/event-stream" if request.stream else "application/json")
        return HttpRequest(_url(upstream, "/completions", request.model), headers, body)

    def completion_decoder(
        self, request: completion_pb2.CompleteRequest, upstream: Upstream[OpenAIUpstream]
    ) -> CompletionDecoder:
        return OpenAITextDecoder(request, upstream.name)

    def ignored_embed_params(
        self, request: embedding_pb2.EmbedRequest, upstream: Upstream[OpenAIUpstream]
    ) -> list[str]:
        """None, as for chat completions."""
        return []

    def encode_embed(self, request: embedding_pb2.EmbedRequest, upstream: Upstream[OpenAIUpstream]) -> HttpRequest:
        headers = _headers(upstream, "application/json")
        return HttpRequest(_url(upstream, "/embeddings", request.model), headers, encode_embed(request))

    def decode_embed(self, body: bytes, request: embedding_pb2.EmbedRequest) -> embedding_pb2.EmbedResponse:
        return decode_embed(body, request)

    def encode_moderation(
        self, request: moderation_pb2.ModerateRequest, upstream: Upstream[OpenAIUpstream]
    ) -> HttpRequest:
        headers = _headers(upstream, "application/json")
        return HttpRequest(_url(upstream, "/moderations"), headers, encode_moderation(request))

    def decode_moderation(self, body: bytes) -> moderation_pb2.ModerateResponse:
        return decode_moderation(body)

    def encode_list_models(self, upstream: Upstream[OpenAIUpstream]) -> HttpRequest:
        headers = _headers(upstream, "application/json")
        return HttpRequest(_url(upstream, "/models"), headers, method="GET")

    def decode_list_models(self, body: bytes) -> Iterable[model_pb2.Model]:
        """The upstream's list, `{"data": [...]}` or a bare array. Raises `CallError` (UPSTREAM_PROTOCOL)."""
        try:
            listed = body.lstrip()[:1] == b"["
            entries = wire.MODEL_ARRAY.decode(body) if listed else wire.MODELS.decode(body).data or []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CallError(Reason.UPSTREAM_PROTOCOL, "The upstream's model list cannot be read.") from None
        return [
            model_pb2.Model(id=e.id, owned_by=e.owned_by or "", created=wire.whole(e.created) or 0)
            for e in entries
            if e.id
        ]


def _url(upstream: Upstream[OpenAIUpstream], path: str, model: str = "") -> str:
    settings = upstream.settings
    url = settings.base_url
    if settings.deployments and model:
        url += "/deployments/" + quote(model, safe="")
    url += path
    return f"{url}?{urlencode(settings.query)}" if settings.query else url


def _headers(upstream: Upstream[OpenAIUpstream], accept: str) -> dict[str, str]:
    headers = {"content-type": "application/json", "accept": accept}
    if upstream.credential:
        where = upstream.settings.credential_header
        bearer = where.lower() == "authorization"
        headers[where] = f"Bearer {upstream.credential}" if bearer else upstream.credential
    headers.update(upstream.settings.headers)
    return headers

"""The service of a family with upstreams. The loop: encode, call the upstream, decode what arrives, send it on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trestle.errors import CallError, Reason
from trestle.logs import failure
from trestle.rpc.call import Call
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2
from worker.calls import (
    CallMetadata,
    Calls,
    drop_foreign_seals,
    log,
    need,
    note_ignored,
    unimplemented,
)
from worker.family import CompletesText, Decoder, Embeds, HttpRequest, Moderates, RemoteFamily, SplitsEmbeddings
from worker.fanout import fan_out, join, total_usage
from worker.limits import Limits
from worker.out import Out
from worker.relay import Relay, bare_errors, first_bytes, refuse_page, unframed
from worker.sse import SseParser
from worker.upstream import UpstreamAnswer, UpstreamClient
from worker.vault import NO_VAULT, Vault


class RemoteService:
    """Implements the contract for one family. clients: in the order of the configuration; the first serves who names
    none. calls: those that are open. vault: opens what accounts
    have sealed."""

    def __init__(
        self,
        family: RemoteFamily[Any],
        clients: Mapping[str, UpstreamClient[Any]],
        calls: Calls,
        vault: Vault = NO_VAULT,
    ) -> None:
        self._calls = calls
        self._family = family
        self._completes = family if isinstance(family, CompletesText) else None
        self._embeds = family if isinstance(family, Embeds) else None
        self._splits = family if isinstance(family, SplitsEmbeddings) else None
        self._moderates = family if isinstance(family, Moderates) else None
        self.renew(clients, vault)
        self._tails: set[asyncio.Task[None]] = set()

    def renew(self, clients: Mapping[str, UpstreamClient[Any]], vault: Vault) -> None:
        """What calls that begin from now on are served with."""
        self.clients = clients
        self._first = next(iter(clients.values()))
        self._vault = vault

    async def Chat(self, request: chat_pb2.ChatRequest, context: Call) -> chat_pb2.ChatResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._chat(request, context, call), context, call)

    async def _chat(
        self, request: chat_pb2.ChatRequest, context: Call, call: CallMetadata
    ) -> chat_pb2.ChatResponse:
        need(bool(request.model), "model")
        need(bool(request.messages), "messages")
        family = self._family
        client = self._client(request.upstream, call)
        drop_foreign_seals(request, family.name)
        note_ignored(family.ignored_params(request, client.upstream), family.name, call)

        async def answer(single: chat_pb2.ChatRequest, out: Out[chat_pb2.ChatResponse]) -> None:
            encoded = family.encode_chat(single, client.upstream)
            decoder = family.chat_decoder(single, client.upstream)
            await self._answer(client, encoded, decoder, single.stream, out, call)

        out = Out(chat_pb2.ChatResponse(), context if request.stream else None)
        if request.sampling.n > 1 and not family.native_n:
            call.usage = await fan_out(request, answer, out)
        else:
            await answer(request, out)
        return out.last

    async def Complete(
        self, request: completion_pb2.CompleteRequest, context: Call
    ) -> completion_pb2.CompleteResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._complete(request, context, call), context, call)

    async def _complete(
        self, request: completion_pb2.CompleteRequest, context: Call, call: CallMetadata
    ) -> completion_pb2.CompleteResponse:
        need(bool(request.model), "model")
        if self._completes is None:
            raise unimplemented(self._family.name, "text completions")
        client = self._client(request.upstream, call)
        out = Out(completion_pb2.CompleteResponse(), context if request.stream else None)
        encoded = self._completes.encode_completion(request, client.upstream)
        decoder = self._completes.completion_decoder(request, client.upstream)
        await self._answer(client, encoded, decoder, request.stream, out, call)
        return out.last

    async def Embed(
        self, request: embedding_pb2.EmbedRequest, context: Call
    ) -> embedding_pb2.EmbedResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._embed(request, call), context, call)

    async def _embed(self, request: embedding_pb2.EmbedRequest, call: CallMetadata) -> embedding_pb2.EmbedResponse:
        need(bool(request.model), "model")
        need(bool(request.inputs), "input")
        if self._embeds is None:
            raise unimplemented(self._family.name, "embeddings")
        client = self._client(request.upstream, call)
        ignored = self._embeds.ignored_embed_params(request, client.upstream)
        note_ignored(ignored, self._family.name, call)
        parts = [request] if self._splits is None else self._splits.split_embed(request, client.upstream)
        answers: list[embedding_pb2.EmbedResponse] = []
        try:
            for part in parts:
                body = await self._whole(client, self._embeds.encode_embed(part, client.upstream), call)
                with _said_by(client):
                    answers.append(self._embeds.decode_embed(body, part))
        finally:
            call.usage = total_usage(each.usage for each in answers)
        return join(answers)

    async def Moderate(
        self, request: moderation_pb2.ModerateRequest, context: Call
    ) -> moderation_pb2.ModerateResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._moderate(request, call), context, call)

    async def _moderate(
        self, request: moderation_pb2.ModerateRequest, call: CallMetadata
    ) -> moderation_pb2.ModerateResponse:
        need(bool(request.input_json), "input")
        if self._moderates is None:
            raise unimplemented(self._family.name, "moderation")
        client = self._client(request.upstream, call)
        body = await self._whole(client, self._moderates.encode_moderation(request, client.upstream), call)
        with _said_by(client):
            return self._moderates.decode_moderation(body)

    async def ListModels(
        self, request: model_pb2.ListModelsRequest, context: Call
    ) -> model_pb2.ListModelsResponse:
        call = CallMetadata(context, request)
        return await self._calls.run(self._list_models(call), context, call)

    async def _list_models(self, call: CallMetadata) -> model_pb2.ListModelsResponse:
        listed = await asyncio.gather(
            *(self._models(client, call) for client in self.clients.values()), return_exceptions=True
        )
        response = model_pb2.ListModelsResponse()
        failed: list[CallError] = []
        for client, models in zip(self.clients.values(), listed, strict=True):
            if isinstance(models, CallError):
                # One upstream that cannot be asked must not hide the others' models.
                extra = {**failure(models), "upstream": client.upstream.name}
                log.info("an upstream's models cannot be listed", extra=extra)
                failed.append(models)
            elif isinstance(models, BaseException):
                raise models
            else:
                response.models.extend(models)
        if failed and len(failed) == len(self.clients):
            raise failed[0]
        return response

    async def _models(self, client: UpstreamClient[Any], call: CallMetadata) -> list[model_pb2.Model]:
        upstream = client.upstream
        if upstream.settings.models:
            return [model_pb2.Model(id=name, upstream=upstream.name) for name in upstream.settings.models]
        body = await self._whole(client, self._family.encode_list_models(upstream), call)
        with _said_by(client):
            models = list(self._family.decode_list_models(body))
        for model in models:
            model.upstream = upstream.name
        return models

    def _client(self, name: str, call: CallMetadata) -> UpstreamClient[Any]:
        client = self.clients.get(name) if name else self._first
        if client is None:
            raise CallError(
                Reason.INVALID_REQUEST, f"This worker has no upstream named {name!r}.", param="upstream"
            )
        call.upstream = client.upstream.name
        if call.credential:
            return client.shown(self._vault.open(call.account, client.upstream.name, call.credential))
        return client

    async def _whole(self, client: UpstreamClient[Any], request: HttpRequest, call: CallMetadata) -> bytes:
        """The body of a 2xx answer in one piece. Raises the `CallError` of any other."""
        async with client.capacity:
            answer = await self._open(client, request, call)
            try:
                await call.begin()
                return await answer.read_all(client.upstream.settings.max_answer_bytes)
            finally:
                answer.close()

    async def _answer(
        self,
        client: UpstreamClient[Any],
        request: HttpRequest,
        decoder: Decoder[Any],
        stream: bool,
        out: Out[Any],
        call: CallMetadata,
    ) -> None:
        """One upstream call: its chunks sent as they come."""
        settings = client.upstream.settings
        limit = Limits(settings.timeout, settings.first_token_timeout, client.upstream.name)
        flush = call.flush_interval() if stream else 0.0
        try:
            async with client.capacity, limit:
                answer = await self._open(client, request, call)
                more = False
                try:
                    await call.begin()
                    refuse_page(answer)
                    first = await first_bytes(answer)
                    if first[:1] in (b"{", b"["):
                        response = out.new()
                        decoder.feed_whole(await answer.read_all(settings.max_answer_bytes, first), response.chunks)
                        out.finish(response)
                    else:
                        # A stream is its caller's to bound; what is to be one piece is held here.
                        most = sys.maxsize if stream else settings.max_answer_bytes
                        sse = SseParser(settings.max_event_bytes)
                        with bare_errors(sse, decoder):
                            more = await Relay(answer, sse, decoder, out, limit, most, flush).run(first)
                finally:
                    call.usage = decoder.usage
                    call.began_at = limit.began_at
                    if more and not answer.ended:
                        self._finish(answer)
                    else:
                        answer.close()
        except CallError as error:
            error.upstream = client.upstream.name
            error.usage = error.usage or decoder.usage
            _hide(client.upstream.credential, error)
            raise

    async def _open(self, client: UpstreamClient[Any], request: HttpRequest, call: CallMetadata) -> UpstreamAnswer:
        """The head of a 2xx answer, after retries where they are this worker's to make. Raises the `CallError` of any
        other."""
        retries = client.retries
        retries.earn()
        attempt = 1
        while True:
            try:
                return await self._try(client, request, call)
            except CallError as error:
                error.attempts = attempt
                pause = retries.pause(error, attempt, call.left()) if call.may_retry else None
                if pause is None:
                    raise
                log.info(
                    "the upstream failed, once more in %.2f s",
                    pause,
                    extra={**failure(error), "upstream": client.upstream.name},
                )
            await asyncio.sleep(pause)
            attempt += 1
            call.retries += 1

    async def _try(self, client: UpstreamClient[Any], request: HttpRequest, call: CallMetadata) -> UpstreamAnswer:
        answer = await self._ask(client, request, call)
        if 200 <= answer.status < 300:
            return answer
        try:
            body = unframed(await answer.read_error())
            error = self._family.decode_error(answer.status, answer.headers, body, client.upstream)
            _hide(client.upstream.credential, error)
            if client.borrowed and error.reason is Reason.UPSTREAM_CREDENTIAL:
                refused = "The upstream refuses the credential that your account has stored for it."
                raise CallError(Reason.PERMISSION_DENIED, refused, code="credential_refused", param="model")
            raise error
        finally:
            answer.close()

    async def _ask(self, client: UpstreamClient[Any], request: HttpRequest, call: CallMetadata) -> UpstreamAnswer:
        """The head of whatever answer comes."""
        if call.trace is None:
            return await client.open(request, call.carried())
        span = call.trace.upstream(call, request.url)
        try:
            answer = await client.open(request, {**call.carried(), **span.headers})
        except BaseException:
            span.end()
            raise
        span.answered(answer.status)
        answer.span = span
        return answer

    def _finish(self, answer: UpstreamAnswer) -> None:
        """Reads the rest of a finished answer's body beside the call, whose status need not wait for it."""
        answer.end()
        task = asyncio.create_task(answer.finish())
        self._tails.add(task)
        task.add_done_callback(self._tails.discard)


def _hide(credential: str, error: CallError) -> None:
    """An upstream may say what it was shown; nobody else is to read that."""
    if not credential:
        return
    for name in ("message", "type", "code", "param"):
        said = getattr(error, name)
        if said is not None and credential in said:
            setattr(error, name, said.replace(credential, "[hidden]"))


@contextmanager
def _said_by(client: UpstreamClient[Any]) -> Iterator[None]:
    """A fault found in here is that upstream's."""
    try:
        yield
    except CallError as error:
        error.upstream = client.upstream.name
        raise

"""The echo as it runs in earnest: a worker of its own, over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from support import services
from support.echo import assert_grammar, chat
from support.upstream import PATIENCE

from trestle.errors import CallError, Reason
from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2, worker_service_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    async with (
        services.worker("echo", tmp_path_factory.mktemp("echo")) as service,
        grpc.aio.insecure_channel(service.address) as channel,
    ):
        yield worker_service_pb2_grpc.WorkerServiceStub(channel)


async def failure_of(call: Any) -> tuple[grpc.StatusCode, CallError, list[chat_pb2.ChatChunk]]:
    """How the call ends, and the chunks before that."""
    before: list[chat_pb2.ChatChunk] = []

    async def read() -> None:
        async for response in call:
            before.extend(response.chunks)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    details = dict(caught.value.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert details is None or isinstance(details, bytes)
    code = caught.value.code()
    return code, CallError.from_status(code.value[0], caught.value.details() or "", details), before


async def test_a_stream(worker: Any) -> None:
    call = worker.Chat(chat(model="echo?tokens=100&chunk=2", stream=True), timeout=PATIENCE)
    chunks = [chunk async for response in call for chunk in response.chunks]
    assert_grammar(chunks)
    fold = AnswerFold()
    fold.feed(chunks)
    fold.close()
    assert fold.usage is not None
    assert fold.usage.output_tokens == 100
    assert (fold.choices[0].text or "").startswith("Hello, bridge Hello, bridge")
    assert fold.started is not None
    assert fold.started.created > 1_700_000_000


async def test_an_answer_in_one_piece_after_its_time(worker: Any) -> None:
    call = worker.Chat(chat(model="echo?ttft_ms=5&delay_ms=1"), timeout=PATIENCE)
    (response,) = [response async for response in call]
    assert_grammar(response.chunks)


async def test_a_paced_stream_comes_chunk_by_chunk(worker: Any) -> None:
    call = worker.Chat(chat("one two three", "echo?delay_ms=1", stream=True), timeout=PATIENCE)
    texts = [[chunk.text for chunk in response.chunks if chunk.HasField("text")] async for response in call]
    assert texts == [["one"], [" two"], [" three"]]


async def test_what_is_ignored_comes_with_the_head(worker: Any) -> None:
    call = worker.Chat(chat(temperature=0.5, verbosity="low"), timeout=PATIENCE)
    assert dict(await call.initial_metadata())["x-trestle-ignored-params"] == "verbosity,temperature"
    assert [response async for response in call]


async def test_or_is_an_error_for_who_is_strict(worker: Any) -> None:
    metadata = (("x-trestle-strict", "true"),)
    code, error, _ = await failure_of(worker.Chat(chat(top_p=0.5), metadata=metadata, timeout=PATIENCE))
    assert (code, error.reason, error.param) == (grpc.StatusCode.INVALID_ARGUMENT, Reason.UNSUPPORTED, "top_p")


async def test_a_bad_option(worker: Any) -> None:
    code, error, _ = await failure_of(worker.Chat(chat(echo={"delay_ms": -1}), timeout=PATIENCE))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.param) == (Reason.INVALID_REQUEST, "echo.delay_ms")


async def test_a_fault_after_some_chunks(worker: Any) -> None:
    request = chat("one two three", "echo?fault=error&status=429&retry_after=2&after=2", stream=True)
    code, error, before = await failure_of(worker.Chat(request, timeout=PATIENCE))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (error.reason, error.retry_after, error.upstream_status) == (Reason.UPSTREAM_RATE_LIMITED, 2, 429)
    assert "".join(chunk.text for chunk in before) == "one two"
    assert error.usage is not None
    assert error.usage.output_tokens == 2


async def test_a_stall_lasts_until_the_deadline(worker: Any) -> None:
    call = worker.Chat(chat("one two", "echo?fault=stall&after=1", stream=True), timeout=1.5)
    code, _, before = await failure_of(call)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert [chunk.text for chunk in before] == ["", "one"]


async def test_the_models(worker: Any) -> None:
    answer = await worker.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE)
    assert [(model.id, model.takes_options) for model in answer.models] == [("echo", True)]


async def test_embeddings(worker: Any) -> None:
    request = embedding_pb2.EmbedRequest(model="echo", inputs=[embedding_pb2.EmbedInput(text="x")], dimensions=8)
    answer = await worker.Embed(request, timeout=PATIENCE)
    assert [len(each.float32_le) for each in answer.embeddings] == [32]


async def test_text_completions(worker: Any) -> None:
    request = completion_pb2.CompleteRequest(model="echo", prompts=[completion_pb2.Prompt(text="one two")], stream=True)
    call = worker.Complete(request, timeout=PATIENCE)
    chunks = [chunk async for response in call for chunk in response.chunks]
    assert "".join(chunk.text for chunk in chunks) == "one two"
    assert chunks[-1].usage.output_tokens == 2


async def test_moderations(worker: Any) -> None:
    request = moderation_pb2.ModerateRequest(input_json=b'["Violence!", "Peace."]')
    answer = await worker.Moderate(request, timeout=PATIENCE)
    assert [result["flagged"] for result in json.loads(answer.results_json)] == [True, False]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await worker.Moderate(moderation_pb2.ModerateRequest(), timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

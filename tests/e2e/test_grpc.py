"""The worker to a direct caller: the contract alone, without the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support import services
from support.chain import Chain
from support.upstream import PATIENCE, Cut, Framing, Gate, Reply, ScriptedUpstream, chunk, completion, sse, text_stream

from trestle.fold import AnswerFold
from trestle.v1 import chat_pb2, model_pb2, worker_service_pb2_grpc

pytestmark = pytest.mark.asyncio(loop_scope="session")

Channel: TypeAlias = grpc.aio.Channel
SERVICE = "trestle.v1.WorkerService"


@pytest_asyncio.fixture(loop_scope="session")
async def channel(chain: Chain) -> AsyncIterator[Channel]:
    async with grpc.aio.insecure_channel(chain.worker.address) as channel:
        yield channel


@pytest.fixture
def worker(channel: Channel) -> Any:
    return worker_service_pb2_grpc.WorkerServiceStub(channel)


def ask(**fields: Any) -> chat_pb2.ChatRequest:
    return chat_pb2.ChatRequest(**{
        "model": "m",
        "messages": [chat_pb2.Message(role=chat_pb2.ROLE_USER, text="Hello?")],
        "stream": True,
        **fields,
    })  # fmt: skip


async def answer_of(worker: Any, request: chat_pb2.ChatRequest) -> tuple[AnswerFold, list[chat_pb2.ChatResponse]]:
    responses = [response async for response in worker.Chat(request, timeout=PATIENCE)]
    answer = AnswerFold()
    for response in responses:
        answer.feed(response.chunks)
    answer.close()
    return answer, responses


async def failure_of(call: Any) -> tuple[grpc.StatusCode, status_pb2.Status, Sequence[chat_pb2.ChatResponse]]:
    """The status, its details as any language's library reads them, and what came before it."""
    responses = []

    async def read() -> None:
        async for response in call:
            responses.append(response)  # noqa: PERF401 (what came before the failure must be kept)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read()
    trailers = dict(caught.value.trailing_metadata() or ())
    details = trailers["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    code = caught.value.code()
    assert status.code == code.value[0]
    assert status.message == caught.value.details()
    return code, status, responses


def unpack(status: status_pb2.Status, kind: Any) -> Any:
    """The one detail of this kind."""
    (found,) = [each for each in status.details if each.Is(kind.DESCRIPTOR)]
    detail = kind()
    found.Unpack(detail)
    return detail


async def test_reflection_names_the_services(channel: Channel) -> None:
    stubs: Any = reflection_pb2_grpc
    stub = stubs.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    async with asyncio.timeout(PATIENCE):
        listed, file = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
    names = {service.name for service in listed.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names
    assert any(b"ChatRequest" in each for each in file.file_descriptor_response.file_descriptor_proto)


async def test_reflection_is_enough_to_call(chain: Chain, first: ScriptedUpstream) -> None:
    """What grpcurl does: no file of ours, only the server's word for what there is."""
    first.will(Reply.sse(*text_stream(["Hel", "lo"])))

    def call() -> list[dict[str, Any]]:
        with grpc.insecure_channel(chain.worker.address) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            method = pool.FindServiceByName(SERVICE).methods_by_name["Chat"]
            request = GetMessageClass(method.input_type)()
            message = {"role": "ROLE_USER", "text": "Hello?"}
            json_format.ParseDict({"model": "m", "stream": True, "messages": [message]}, request)
            chat: Any = channel.unary_stream(
                f"/{SERVICE}/Chat",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            return [json_format.MessageToDict(each) for each in chat(request, timeout=PATIENCE)]

    chunks = [chunk for response in await asyncio.to_thread(call) for chunk in response["chunks"]]
    assert "".join(chunk.get("text", "") for chunk in chunks) == "Hello"
    assert [chunk["finish"]["reason"] for chunk in chunks if "finish" in chunk] == ["FINISH_REASON_STOP"]


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_says_that_it_serves(service: str, channel: Channel) -> None:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_stream(worker: Any, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(*text_stream(["Hel", "lo"])))
    answer, responses = await answer_of(worker, ask())
    assert answer.choices[0].text == "Hello"
    assert answer.whole
    assert answer.usage == chat_pb2.Usage(input_tokens=11, output_tokens=7)
    assert all(response.chunks for response in responses), "a response is never empty"
    assert first.requests[0].json["stream_options"] == {"include_usage": True}


async def test_what_arrives_together_travels_together(worker: Any, first: ScriptedUpstream) -> None:
    """And nothing waits for more to come."""
    gate = Gate()
    events = text_stream(["a", "b", "c", "d"])
    first.will(Reply.sse(b"".join(events[:3]), gate, b"".join(events[3:])))
    call = worker.Chat(ask(), timeout=PATIENCE)
    responses = aiter(call)
    early = await anext(responses)
    assert [each.WhichOneof("event") for each in early.chunks] == ["started", "text", "text"]
    gate.set()
    (late,) = [response async for response in responses]
    assert [each.WhichOneof("event") for each in late.chunks] == ["text", "text", "usage", "finish"]


async def test_an_answer_in_one_piece(worker: Any, first: ScriptedUpstream) -> None:
    first.will(Reply.json(completion("Hello.")))
    answer, responses = await answer_of(worker, ask(stream=False))
    assert len(responses) == 1
    assert (answer.choices[0].text, answer.whole) == ("Hello.", True)
    assert "stream" not in first.requests[0].json


async def test_the_upstream_is_the_callers_choice(worker: Any, second: ScriptedUpstream) -> None:
    second.will(Reply.sse(*text_stream(["Second."])))
    answer, _ = await answer_of(worker, ask(upstream="second"))
    assert answer.choices[0].text == "Second."


async def test_an_upstreams_error_with_its_details(worker: Any, first: ScriptedUpstream) -> None:
    error = {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
    first.will(Reply.json(error, 429, retry_after="3", x_request_id="req_theirs"))
    code, status, _ = await failure_of(worker.Chat(ask(), timeout=PATIENCE))
    assert (code, status.message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "Slow down.")
    info = unpack(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("UPSTREAM_RATE_LIMITED", "trestle")
    assert dict(info.metadata) == {
        "code": "rate_limit_exceeded",
        "type": "requests",
        "upstream": "first",
        "upstream_status": "429",
        "upstream_request_id": "req_theirs",
    }
    assert unpack(status, error_details_pb2.RetryInfo).retry_delay.seconds == 3


async def test_the_longest_error_that_there_is(worker: Any, first: ScriptedUpstream) -> None:
    """gRPC's own limit on metadata, 8 KB, is one by chance from there on: so it is tried often."""
    long = dict.fromkeys(("message", "type", "param", "code", "failed_generation"), "🎉" * 1000)
    for _ in range(50):
        first.will(Reply.json({"error": long}, 429, retry_after="3", x_request_id="r" * 5000))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            assert [response async for response in worker.Chat(ask(), timeout=PATIENCE)] == []
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        info = unpack(status_pb2.Status.FromString(details), error_details_pb2.ErrorInfo)
        assert info.reason == "UPSTREAM_RATE_LIMITED"
        assert "🎉…" in info.metadata["extra_json"]


class TestRetriesOfGrpc:
    """They are for workers that cannot begin; what a worker has tried itself it forbids them."""

    async def trailers_of(self, worker: Any, request: chat_pb2.ChatRequest) -> dict[str, str | bytes]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            assert [response async for response in worker.Chat(request, timeout=PATIENCE)] == []
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        return dict(caught.value.trailing_metadata() or ())

    async def test_of_an_upstreams_failure(self, worker: Any, first: ScriptedUpstream) -> None:
        first.will(Reply.json({"error": {"message": "Busy."}}, 503))
        assert (await self.trailers_of(worker, ask()))["grpc-retry-pushback-ms"] == "-1"

    async def test_of_a_worker_that_is_full(self, tmp_path: Path) -> None:
        async with (
            services.worker("echo", tmp_path, settings={"max_calls": 1}) as full,
            grpc.aio.insecure_channel(full.address) as channel,
        ):
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            held = stub.Chat(ask(model="echo?fault=stall&after=1"), timeout=PATIENCE)
            await anext(aiter(held))
            assert "grpc-retry-pushback-ms" not in await self.trailers_of(stub, ask(model="echo"))
            held.cancel()


async def test_a_bad_field_is_named(worker: Any, first: ScriptedUpstream) -> None:
    error = {"error": {"message": "Too hot.", "type": "t", "param": "temperature", "code": "c"}}
    first.will(Reply.json(error, 400))
    code, status, _ = await failure_of(worker.Chat(ask(), timeout=PATIENCE))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    (violation,) = unpack(status, error_details_pb2.BadRequest).field_violations
    assert (violation.field, violation.description) == ("temperature", "Too hot.")


async def test_a_cut_stream_tells_what_it_used(worker: Any, first: ScriptedUpstream) -> None:
    usage = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}
    first.will(Reply.sse(sse(chunk({"content": "Hel"}, usage=usage)), Cut.CLOSE))
    code, status, responses = await failure_of(worker.Chat(ask(), timeout=PATIENCE))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert unpack(status, error_details_pb2.ErrorInfo).reason == "UPSTREAM_TRUNCATED"
    assert unpack(status, chat_pb2.Usage) == chat_pb2.Usage(input_tokens=11, output_tokens=2)
    events = [each.WhichOneof("event") for response in responses for each in response.chunks]
    assert events == ["started", "text", "usage"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [chat_pb2.Message(text="a")]}, "messages[0].role"),
        ({"upstream": "nobody"}, "upstream"),
        ({"extra_json": b"[1]"}, "extra_json"),
    ],
)
async def test_a_request_that_cannot_be(
    fields: dict[str, Any], param: str, worker: Any, first: ScriptedUpstream
) -> None:
    code, status, _ = await failure_of(worker.Chat(ask(**fields), timeout=PATIENCE))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert unpack(status, error_details_pb2.ErrorInfo).metadata["param"] == param
    assert first.requests == []


async def test_the_request_id_goes_on(worker: Any, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(*text_stream(["a"])))
    call = worker.Chat(ask(), timeout=PATIENCE, metadata=(("x-request-id", "mine-1"),))
    assert [response async for response in call]
    assert first.requests[0].headers["x-request-id"] == "mine-1"


async def test_cancelling_the_call_ends_the_upstreams_work(worker: Any, first: ScriptedUpstream) -> None:
    first.will(Reply.sse(sse(chunk({"content": "Hel"})), Gate()))
    call = worker.Chat(ask(), timeout=PATIENCE)
    await anext(aiter(call))
    call.cancel()
    await (await first.request()).closed()
    assert await call.code() is grpc.StatusCode.CANCELLED


async def test_so_does_the_deadline(worker: Any, first: ScriptedUpstream) -> None:
    first.will(Reply([Gate()], framing=Framing.BARE))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        assert [response async for response in worker.Chat(ask(), timeout=1.0)] == []
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await (await first.request()).closed()


class TestModels:
    async def test_those_of_the_configuration(self, worker: Any) -> None:
        answer = await worker.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE)
        assert [(model.id, model.upstream) for model in answer.models] == [
            ("listed", "first"),
            ("vendor/listed:tag", "first"),
            ("second-only", "second"),
            ("listed", "second"),
            ("refused-only", "refused"),
            ("impatient-only", "impatient"),
        ]

    async def test_those_that_an_upstream_lists(self, tmp_path: Path) -> None:
        """One that cannot be asked does not hide the others."""
        async with ScriptedUpstream() as good, ScriptedUpstream() as bad:
            good.will(Reply.json({"object": "list", "data": [{"id": "a/b:c", "created": 7, "owned_by": "us"}]}))
            bad.will(Reply.json({}, 500))
            upstreams = {"bad": {"base_url": bad.url}, "good": {"base_url": good.url}}
            async with (
                services.worker("openai", tmp_path, upstreams) as service,
                grpc.aio.insecure_channel(service.address) as channel,
            ):
                stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
                answer = await stub.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE)
            assert list(answer.models) == [model_pb2.Model(id="a/b:c", created=7, owned_by="us", upstream="good")]
            assert (good.requests[0].method, good.requests[0].path) == ("GET", "/v1/models")


async def test_a_stop_lets_the_open_call_finish(tmp_path: Path) -> None:
    """Health fails first; who comes later is told to go elsewhere."""
    async with ScriptedUpstream() as upstream:
        gate = Gate()
        events = text_stream(["Hel", "lo"])
        upstream.will(Reply.sse(*events[:2], gate, *events[2:]))
        service = await services.start(
            "stopping", "worker", "openai",
            config={"worker": {"openai": {"upstreams": {"u": {"base_url": upstream.url}}}}}, folder=tmp_path,
        )  # fmt: skip
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub: Any = worker_service_pb2_grpc.WorkerServiceStub(channel)
            health: Any = health_pb2_grpc.HealthStub(channel)
            watching = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            watch = aiter(watching)
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
            responses = aiter(stub.Chat(ask(), timeout=PATIENCE))
            answer = AnswerFold()
            answer.feed((await anext(responses)).chunks)
            stopped = asyncio.ensure_future(service.stop())
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watching.cancel()
            gate.set()
            async for response in responses:
                answer.feed(response.chunks)
            answer.close()
            assert (answer.choices[0].text, answer.whole) == ("Hello", True)
            assert await stopped == 0

"""trestle.client, with asyncio and without, at a real worker in front of a scripted upstream: answers and failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import services
from support.certificates import Authority
from support.direct import Connect, connected, read
from support.upstream import (
    PATIENCE,
    USAGE,
    Cut,
    Framing,
    Gate,
    Reply,
    ScriptedUpstream,
    chunk,
    completion,
    sse,
    text_stream,
)

from trestle.client import (
    CallError,
    Client,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    Reason,
    Sampling,
    TimedOut,
    Tls,
    Truncated,
    Unauthenticated,
    Unavailable,
    Unsupported,
    UpstreamFailed,
    Usage,
    chat_request,
    embed_request,
    function,
    moderate_request,
    system,
    text_request,
    tool_result,
)
from trestle.v1 import chat_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")

ASK = chat_request("scripted-model", "Hello?")
TOLD = Usage(input_tokens=USAGE["prompt_tokens"], output_tokens=USAGE["completion_tokens"])


class TestAnswers:
    async def test_a_stream_as_it_comes(self, client: Client, upstream: ScriptedUpstream) -> None:
        """The second piece leaves the upstream only when the first was read."""
        gate = Gate()
        events = text_stream(["Hel", "lo"])
        upstream.will(Reply.sse(*events[:2], gate, *events[2:]))
        stream = client.chat(ASK)
        texts = []
        async for each in stream:
            if each.text:
                texts.append(each.text)
                gate.set()
                assert len(texts) == 2 or stream.usage is None
        assert texts == ["Hel", "lo"]
        assert stream.usage == TOLD
        answer = stream.answer
        assert (answer.text, answer.model, answer.id) == ("Hello", "scripted-model", "chatcmpl-scripted")
        assert (answer.finish, answer.created) == (chat_pb2.FINISH_REASON_STOP, 1_760_000_000)
        assert upstream.requests[0].json["stream"] is True

    async def test_in_one_piece(self, client: Client, upstream: ScriptedUpstream) -> None:
        upstream.will(Reply.json(completion("Hello.")))
        request = chat_request("scripted-model", system("Be brief."), "Hello?", sampling=Sampling(temperature=0.7))
        request.stream = True
        answer = await client.complete(request)
        assert (answer.text, answer.usage) == ("Hello.", TOLD)
        assert request.stream, "the caller's own request stays as it is"
        asked = upstream.requests[0].json
        assert (asked["temperature"], "stream" in asked) == (0.7, False)
        assert [each["role"] for each in asked["messages"]] == ["system", "user"]

    async def test_the_conversation_goes_on(self, client: Client, upstream: ScriptedUpstream) -> None:
        """A tool's call, its result, and the answer to that."""
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}}
        upstream.will(Reply.json(completion(None, "tool_calls", tool_calls=[call])), Reply.json(completion("Rain.")))
        weather = function("weather", "Tells it.", {"type": "object", "properties": {"place": {"type": "string"}}})
        request = chat_request("scripted-model", "The weather in Oslo?", tools=[weather])
        answer = await client.complete(request)
        (wanted,) = answer.calls
        assert (answer.text, wanted.name, json.loads(wanted.arguments)) == ("", "weather", {"place": "Oslo"})
        request.messages.extend([answer.message(), tool_result(wanted.id, "rain")])
        assert (await client.complete(request)).text == "Rain."
        first, second = (each.json for each in upstream.requests)
        assert first["tools"][0]["function"]["parameters"]["properties"] == {"place": {"type": "string"}}
        assert [each["role"] for each in second["messages"]] == ["user", "assistant", "tool"]
        assert second["messages"][1]["tool_calls"] == [call]
        assert second["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}

    async def test_text_completions(self, client: Client, upstream: ScriptedUpstream) -> None:
        logprobs = {"tokens": ["a"], "token_logprobs": [-0.5], "top_logprobs": None, "text_offset": [0]}
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}

        def said(text: str, finish: str | None = None) -> dict[str, Any]:
            choice = {"index": 0, "text": text, "logprobs": logprobs if text else None, "finish_reason": finish}
            return {**head, "choices": [choice]}

        upstream.will(
            Reply.json({**said("a", "length"), "usage": USAGE}),
            Reply.sse(sse(said("a"), said("b"), said("", "stop"), {**head, "choices": [], "usage": USAGE}, "[DONE]")),
        )
        request = text_request("scripted-model", "Once", sampling=Sampling(max_tokens=2))
        answer = await client.complete_text(request)
        finish = answer.choices[0].finish
        assert finish is not None
        assert (answer.text, finish.reason) == ("a", chat_pb2.FINISH_REASON_LENGTH)
        stream = client.text(request)
        assert "".join([each.text async for each in stream]) == "ab"
        assert stream.answer.text == "ab"
        assert json.loads(stream.answer.choices[0].logprobs["tokens"]) == ["a", "a"]
        assert [each.path for each in upstream.requests] == ["/v1/completions"] * 2
        assert upstream.requests[0].json["prompt"] == "Once"

    async def test_embeddings(self, client: Client, upstream: ScriptedUpstream) -> None:
        data = [{"object": "embedding", "index": i, "embedding": [0.5, -float(i)]} for i in range(2)]
        usage = {"prompt_tokens": 4, "total_tokens": 4}
        upstream.will(Reply.json({"object": "list", "model": "e", "data": data, "usage": usage}))
        answer = await client.embed(embed_request("scripted-model", "a", "b", dimensions=2))
        assert (answer.vectors, answer.model, answer.usage.input_tokens) == ([[0.5, 0.0], [0.5, -1.0]], "e", 4)
        assert upstream.requests[0].json["input"] == ["a", "b"]

    async def test_moderations(self, client: Client, upstream: ScriptedUpstream) -> None:
        judged = [{"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.99}}]
        upstream.will(Reply.json({"id": "modr-1", "model": "omni", "results": judged}))
        answer = await client.moderate(moderate_request("Blood."))
        assert (answer.results, answer.model) == (judged, "omni")
        assert upstream.requests[0].json["input"] == ["Blood."]

    async def test_models(self, client: Client) -> None:
        assert [each.id for each in await client.models()] == ["scripted-model", "other"]

    async def test_the_request_id_goes_on(self, client: Client, upstream: ScriptedUpstream) -> None:
        upstream.will(Reply.json(completion()))
        await client.complete(ASK, request_id="mine-1")
        assert upstream.requests[0].headers["x-request-id"] == "mine-1"

    async def test_an_answer_is_read_once(self, client: Client, upstream: ScriptedUpstream) -> None:
        upstream.will(Reply.sse(*text_stream(["a"])))
        stream = client.chat(ASK)
        with pytest.raises(RuntimeError):
            _ = stream.answer
        assert (await read(stream))[1] is None
        assert isinstance((await read(stream))[1], RuntimeError)
        assert stream.answer.text == "a"


class TestFailures:
    async def test_a_rate_limit_says_when_to_come_back(self, client: Client, upstream: ScriptedUpstream) -> None:
        error = {"error": {"message": "Slow down.", "type": "requests", "param": None, "code": "rate_limit_exceeded"}}
        upstream.will(*[Reply.json(error, 429, retry_after="3", x_request_id="req_theirs")] * 2)
        with pytest.raises(RateLimited, match=r"Slow down\.") as caught:
            await client.complete(ASK)
        raised = caught.value
        assert (raised.reason, raised.retry_after, raised.code) == (
            Reason.UPSTREAM_RATE_LIMITED, 3.0, "rate_limit_exceeded",
        )  # fmt: skip
        assert (raised.upstream, raised.upstream_status, raised.upstream_request_id) == ("scripted", 429, "req_theirs")
        assert isinstance((await read(client.chat(ASK)))[1], RateLimited)

    @pytest.mark.parametrize(
        ("status", "kind"),
        [(400, InvalidRequest), (404, ModelNotFound), (401, UpstreamFailed), (500, UpstreamFailed), (503, Unavailable)],
    )
    async def test_each_is_of_its_kind(
        self, status: int, kind: type[CallError], client: Client, upstream: ScriptedUpstream
    ) -> None:
        error = {"error": {"message": "No.", "type": "t", "param": "temperature", "code": "c"}}
        upstream.will(*[Reply.json(error, status)] * 2)
        with pytest.raises(kind) as caught:
            await client.complete(ASK)
        assert type(caught.value) is kind
        assert caught.value.upstream_status == status
        chunks, raised = await read(client.chat(ASK))
        assert (chunks, type(raised)) == ([], kind)
        assert len(upstream.requests) == 2, "what the worker has given up is not tried again"

    async def test_a_field_at_fault_is_named(self, client: Client) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await client.complete(chat_request("scripted-model"))
        assert (caught.value.param, caught.value.status) == ("messages", 3)

    async def test_a_cut_never_looks_like_an_end(self, client: Client, upstream: ScriptedUpstream) -> None:
        used = sse(chunk({"content": "Hel"}, usage={"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}))
        upstream.will(*[Reply.sse(used, Cut.CLOSE)] * 2)
        stream = client.chat(ASK)
        chunks, raised = await read(stream)
        assert "".join(each.text for each in chunks) == "Hel"
        assert isinstance(raised, Truncated)
        assert raised.usage is not None
        assert (raised.usage.input_tokens, raised.usage.output_tokens) == (11, 2)
        assert stream.usage is not None
        with pytest.raises(RuntimeError):
            _ = stream.answer
        with pytest.raises(Truncated) as caught:
            await client.complete(ASK)
        assert caught.value.usage is not None
        assert (caught.value.usage.input_tokens, caught.value.usage.output_tokens) == (11, 2)

    async def test_a_deadline(self, client: Client, upstream: ScriptedUpstream) -> None:
        upstream.will(*[Reply([Gate()], framing=Framing.BARE)] * 2)
        with pytest.raises(TimedOut):
            await client.complete(ASK, timeout=1.0)
        await (await upstream.request()).closed()
        _, raised = await read(client.chat(ASK, timeout=1.0))
        assert isinstance(raised, TimedOut)
        await (await upstream.request()).closed()

    async def test_nobody_there(self, connect: Connect, dead_address: str) -> None:
        async with connected(connect, dead_address, timeout=PATIENCE, retries=0) as client:
            with pytest.raises(Unavailable) as caught:
                await client.models()
            assert (caught.value.reason, caught.value.another_may_help) == (Reason.UNSPECIFIED, True)


async def test_ignored_parameters_are_told(connect: Connect, tmp_path: Path) -> None:
    async with services.worker("echo", tmp_path) as worker, connected(connect, worker.address) as client:
        request = chat_request("echo", "Hello", sampling=Sampling(top_p=0.5))
        stream = client.chat(request)
        assert list(await stream.ignored_params()) == ["top_p"]
        assert (await read(stream))[1] is None
        assert list(stream.answer.ignored_params) == ["top_p"]
        assert list((await client.complete(request)).ignored_params) == ["top_p"]
        with pytest.raises(Unsupported) as caught:
            await client.complete(request, strict=True)
        assert caught.value.param == "top_p"


async def test_over_mutual_tls_with_a_token(connect: Connect, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ours = authority.issue("billing.test")
    caller = {"name": "billing", "identities": ["billing.test"], "token_envs": ["BILLING_TOKEN"]}
    settings = {"tls": authority.issue("worker.test").server(authority.ca), "callers": [caller]}
    named = Tls(ca=authority.ca, certificate=str(ours.certificate), key=ours.key, name="worker.test")
    pem = Tls(
        ca=authority.ca.read_bytes(),
        certificate=ours.certificate.read_bytes(),
        key=ours.key.read_bytes(),
        name="worker.test",
    )
    environment = {"BILLING_TOKEN": "t0ken"}
    async with services.worker("echo", tmp_path, environment=environment, settings=settings) as worker:
        options = {"timeout": PATIENCE, "retries": 0}
        for tls in (named, pem):
            async with connected(connect, worker.address, tls=tls, token="t0ken", **options) as client:
                assert (await client.complete(chat_request("echo", "Hello"))).text == "Hello"
        async with connected(connect, worker.address, tls=named, token="wrong", **options) as client:
            with pytest.raises(Unauthenticated):
                await client.models()
        async with connected(connect, worker.address, tls=Tls(ca=authority.ca), **options) as client:
            with pytest.raises(Unavailable):
                await client.models()

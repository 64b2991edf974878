"""Several calls to one upstream, one answer."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from support import anthropic
from support.remote import HELLO, bench
from support.upstream import PATIENCE, Gate, Reply, Request, ScriptedUpstream

from trestle.errors import Reason
from trestle.v1 import chat_pb2, embedding_pb2


class TestEmbeddingsInSeveralCalls:
    """Of more inputs than the upstream takes at once."""

    @staticmethod
    def request(inputs: int = 250) -> embedding_pb2.EmbedRequest:
        texts = [embedding_pb2.EmbedInput(text=str(i)) for i in range(inputs)]
        return embedding_pb2.EmbedRequest(model="m", inputs=texts)

    @staticmethod
    def vectors(request: Request, told: bool = True) -> Reply:
        """Of each input the number that it is."""
        texts = [each["content"]["parts"][0]["text"] for each in request.json["requests"]]
        usage = {"usageMetadata": {"promptTokenCount": len(texts)}} if told else {}
        return Reply.json({"embeddings": [{"values": [int(text)]} for text in texts], **usage})

    async def test_are_one_answer(self) -> None:
        async with bench("gemini") as it:
            it.upstream.always = self.vectors
            response = await it.worker.Embed(self.request(), timeout=PATIENCE)
            assert [json.loads(each.values_json) for each in response.embeddings] == [[i] for i in range(250)]
            assert (response.model, response.usage.input_tokens, response.usage.estimated) == ("m", 250, False)
            assert it.counted() == (250, 0)
            assert [len(each.json["requests"]) for each in it.upstream.requests] == [100, 100, 50]
            assert it.upstream.accepted == 1  # one after the other

    async def test_an_estimate_of_one_makes_all_one(self) -> None:
        async with bench("gemini") as it:
            it.upstream.always = lambda request: self.vectors(request, told=len(it.upstream.requests) != 2)
            response = await it.worker.Embed(self.request(), timeout=PATIENCE)
            assert (response.usage.input_tokens > 200, response.usage.estimated) == (True, True)

    @pytest.mark.parametrize("bad", [Reply.json({"error": {"code": 429, "message": "Slow."}}, 429), Reply.json({})])
    async def test_an_error_of_one_is_that_of_all(self, bad: Reply) -> None:
        async with bench("gemini") as it:
            it.upstream.always = lambda request: self.vectors(request) if len(it.upstream.requests) < 2 else bad
            error = await it.refused(self.request())
            assert error.reason is (Reason.UPSTREAM_RATE_LIMITED if bad.status == 429 else Reason.UPSTREAM_PROTOCOL)
            assert (error.upstream, len(it.upstream.requests)) == ("u", 2)
            assert error.usage is not None
            assert (error.usage.input_tokens, 0) == it.counted() == (100, 0)

    async def test_an_input_that_cannot_be_carried_costs_nothing(self) -> None:
        request = self.request()
        request.inputs[249].tokens.ids.append(1)
        async with bench("gemini") as it:
            error = await it.refused(request)
            assert (error.param, it.upstream.requests) == ("input[249]", [])

    @pytest.mark.parametrize("deadline", [True, False])
    async def test_an_end_of_the_call_is_one_of_all(self, deadline: bool) -> None:
        second = asyncio.Event()

        def reply(request: Request) -> Reply:
            if len(it.upstream.requests) < 2:
                return self.vectors(request)
            second.set()
            return Reply([Gate()])

        async with bench("gemini") as it:
            it.upstream.always = reply
            call = it.worker.Embed(self.request(), timeout=1.0 if deadline else PATIENCE)
            async with asyncio.timeout(PATIENCE):
                await second.wait()
            if not deadline:
                call.cancel()
            with pytest.raises(grpc.RpcError if deadline else asyncio.CancelledError):
                await call
            await it.upstream.requests[1].closed()
            assert len(it.upstream.requests) == 2
        assert it.counted() == (100, 0)

    async def test_a_call_that_fails_is_tried_again_alone(self) -> None:
        async with bench("gemini", retries=1) as it:
            it.upstream.always = lambda request: (
                Reply.json({}, 503) if len(it.upstream.requests) == 2 else self.vectors(request)
            )
            response = await it.worker.Embed(self.request(), timeout=PATIENCE)
            assert len(response.embeddings) == 250
            assert [len(each.json["requests"]) for each in it.upstream.requests] == [100, 100, 100, 50]


async def standstill(upstream: ScriptedUpstream) -> None:
    """Returns once the upstream can send nothing more of any answer."""
    before = -1
    while (taken := sum(request.taken for request in upstream.requests)) != before:
        before = taken
        await asyncio.sleep(0.2)


class TestChoicesInSeveralCalls:
    """Of an upstream that makes one at a time."""

    async def test_all_of_them_wait_for_a_caller_that_takes_its_time(self) -> None:
        """And each goes on once it takes more."""
        choices, text = 4, "".join(f"{at:07} " for at in range(500_000))
        answer = anthropic.streamed(anthropic.message({"type": "text", "text": text}), size=4_000)
        request = chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=True)
        request.sampling.n = choices
        texts = [""] * choices
        async with bench("anthropic") as it:
            it.upstream.always = lambda _: Reply.sse(answer)
            call = it.worker.Chat(request, timeout=PATIENCE)
            async for response in call:
                if not any(texts):
                    await standstill(it.upstream)
                for chunk in response.chunks:
                    texts[chunk.choice] += chunk.text
        assert texts == [text] * choices

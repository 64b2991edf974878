"""One call to one upstream: what is counted, told, hidden and tried again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.remote import HELLO, SECRET, bench
from support.rpc import open_calls
from support.upstream import PATIENCE, USAGE, Cut, Gate, Reply, chunk, completion, sse, text_stream

from trestle.errors import Reason
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2, model_pb2, moderation_pb2

PAGE = Reply([b"<html>Sign in, please.</html>"], headers={"content-type": "text/html; charset=utf-8"})
TRIED: dict[str, Any] = {"retries": 2}
EMBEDDED = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m"}
COUNTED = (USAGE["prompt_tokens"], USAGE["completion_tokens"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("events", [True, False])
async def test_what_an_answer_used_is_counted(stream: bool, events: bool) -> None:
    async with bench() as it:
        it.upstream.will(Reply.sse(*text_stream(["Hel", "lo."])) if events else Reply.json(completion()))
        chunks, error = await it.chat(stream)
        assert ("".join(each.text for each in chunks), error) == ("Hello.", None)
        call = it.ended.calls[-1]
        assert (call.upstream, it.counted()) == ("u", COUNTED)
        assert bool(call.began_at) == events


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_makes_several_responses_is_whole_in_one_piece_too(stream: bool) -> None:
    texts = [letter * 20_000 for letter in "abcde"]  # more than one response takes
    async with bench() as it:
        it.upstream.will(Reply.sse(*text_stream(texts)))
        call = it.worker.Chat(chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=stream), timeout=PATIENCE)
        responses = [response async for response in call]
    assert (len(responses) == 1) is not stream
    chunks = [each for response in responses for each in response.chunks]
    assert "".join(each.text for each in chunks) == "".join(texts)
    assert [chunks[0].WhichOneof("event"), chunks[-1].WhichOneof("event")] == ["started", "finish"]


@pytest.mark.parametrize("stream", [True, False])
async def test_so_it_is_for_text_completions(stream: bool) -> None:
    texts = [letter * 20_000 for letter in "abcde"]
    events = [{"id": "x", "model": "m", "choices": [{"index": 0, "text": text}]} for text in texts]
    last = {"id": "x", "model": "m", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}], "usage": USAGE}
    async with bench() as it:
        it.upstream.will(Reply.sse(sse(*events, last, "[DONE]")))
        request = completion_pb2.CompleteRequest(
            model="m", prompts=[completion_pb2.Prompt(text="Say it.")], stream=stream
        )
        responses = [response async for response in it.worker.Complete(request, timeout=PATIENCE)]
    assert (len(responses) == 1) is not stream
    assert "".join(each.text for response in responses for each in response.chunks) == "".join(texts)


@pytest.mark.parametrize("stream", [True, False])
async def test_what_several_answers_used_together_is_counted(stream: bool) -> None:
    text, used = {"type": "text", "text": "Hi."}, {"input_tokens": 3, "output_tokens": 2}
    said = {"type": "message", "role": "assistant", "stop_reason": "end_turn", "content": [text], "usage": used}
    request = chat_pb2.ChatRequest(model="m", messages=[HELLO], sampling=chat_pb2.Sampling(n=3), stream=stream)
    async with bench("anthropic") as it:
        it.upstream.always = lambda _: Reply.json({"id": "x", "model": "m", **said})
        responses = [response async for response in it.worker.Chat(request, timeout=PATIENCE)]
        chunks = [each for response in responses for each in response.chunks]
        assert [each.text for each in chunks if each.text] == ["Hi."] * 3
        last = [each.usage for each in chunks if each.HasField("usage")][-1]
        assert (last.input_tokens, last.output_tokens) == it.counted() == (9, 6)


async def test_what_embeddings_used_is_counted() -> None:
    body = {"data": [{"index": 0, "embedding": [0.5]}], "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}}
    async with bench() as it:
        it.upstream.will(Reply.json(body))
        request = embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")])
        await it.worker.Embed(request, timeout=PATIENCE)
        assert it.counted() == (3, 0)


@pytest.mark.parametrize("end", [b'data: {"error": {"message": "No more."}}\n\n', Cut.CLOSE])
async def test_a_failure_tells_what_was_used_before_it_and_who_failed(end: bytes | Cut) -> None:
    usage = {"usage": USAGE, "choices": []}
    async with bench() as it:
        it.upstream.will(Reply.sse(*text_stream(["Hel"])[:2], sse({**chunk(), **usage}), end))
        chunks, error = await it.chat()
        assert error is not None
        assert "".join(each.text for each in chunks) == "Hel"
        assert error.upstream == "u"
        assert error.usage is not None
        assert (error.usage.input_tokens, error.usage.output_tokens) == it.counted() == COUNTED


async def test_a_web_page_is_no_answer() -> None:
    async with bench() as it:
        it.upstream.will(PAGE)
        error = await it.failure()
    assert (error.reason, error.text) == (Reason.UPSTREAM_PROTOCOL, "The upstream answered with a web page.")
    assert error.upstream == "u"


async def test_json_that_is_no_answer_is_not_taken_for_events() -> None:
    async with bench() as it:
        it.upstream.will(Reply.json([{"id": "x"}]))
        error = await it.failure()
    assert (error.reason, error.text) == (Reason.UPSTREAM_PROTOCOL, "The upstream sent an event that cannot be read.")


@pytest.mark.parametrize("member", ["message", "type", "code", "param"])
@pytest.mark.parametrize("streamed", [True, False])
async def test_our_credential_is_hidden_whoever_says_it(member: str, streamed: bool) -> None:
    said = {"error": {"message": "No.", "type": "t", "code": "c", "param": "p", member: f"not {SECRET}"}}
    async with bench() as it:
        it.upstream.will(Reply.sse(sse(said)) if streamed else Reply.json(said, 400))
        error = await it.failure()
        assert it.upstream.requests[0].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in f"{error.text} {error.type} {error.code} {error.param}"
    assert "[hidden]" in f"{error.text} {error.type} {error.code} {error.param}"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply.json({"error": {"message": f"not {SECRET}"}}, 400), Reason.INVALID_REQUEST),
        (Reply.json({"data": f"{SECRET}"}), Reason.UPSTREAM_PROTOCOL),
    ],
)
async def test_so_it_is_for_who_wants_embeddings(reply: Reply, reason: Reason) -> None:
    async with bench() as it:
        it.upstream.will(reply)
        error = await it.refused(embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")]))
    assert (error.reason, error.upstream) == (reason, "u")
    assert SECRET not in error.text


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat_pb2.ChatRequest(messages=[HELLO]), "model"),
        (chat_pb2.ChatRequest(model="m"), "messages"),
        (completion_pb2.CompleteRequest(), "model"),
        (embedding_pb2.EmbedRequest(inputs=[embedding_pb2.EmbedInput(text="x")]), "model"),
        (embedding_pb2.EmbedRequest(model="m"), "input"),
        (moderation_pb2.ModerateRequest(), "input"),
    ],
)
async def test_what_no_upstream_is_asked_for(request_: Any, param: str) -> None:
    async with bench() as it:
        error = await it.refused(request_)
        assert (error.reason, error.param, it.upstream.requests) == (Reason.INVALID_REQUEST, param, [])


async def test_who_is_strict_is_told_what_embeddings_ignore() -> None:
    request = embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")], user="someone")
    async with bench("gemini") as it:
        error = await it.refused(request, ("x-trestle-strict", "true"))
        assert (error.param, it.upstream.requests) == ("user", [])


@pytest.mark.parametrize("sealed_by", ["anthropic", "gemini"])
async def test_what_another_family_has_sealed_stays_here(sealed_by: str) -> None:
    thought = chat_pb2.ReasoningBlock(text="Hm.", signature="c2VhbGVk", sealed_by=sealed_by)
    asked = chat_pb2.ToolCall(id="t", name="f", arguments="{}", kind=chat_pb2.TOOL_KIND_FUNCTION)
    said = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, reasoning=[thought], tool_calls=[asked])
    done = chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id="t", text="Done.")
    request = chat_pb2.ChatRequest(model="m", messages=[HELLO, said, done])
    request.reasoning_effort = "high"
    async with bench("anthropic") as it:
        it.upstream.will(Reply.json({}, 400))
        await it.refused(request)
        assert (b"c2VhbGVk" in it.upstream.requests[0].body) == (sealed_by == "anthropic")


@pytest.mark.parametrize("status", [301, 304])
async def test_a_redirect_is_no_answer(status: int) -> None:
    async with bench() as it:
        it.upstream.will(Reply.json(completion(), status))
        assert (await it.failure()).upstream_status == status


async def test_as_many_calls_as_the_upstream_takes() -> None:
    """Of whatever kind."""
    request = embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")])
    async with bench(max_calls=1, queue=0) as it:
        it.upstream.will(Reply.sse(*text_stream(["Hel"])[:2], Gate()))
        call = it.worker.Chat(chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=True), timeout=PATIENCE)
        await call.read()
        assert [(await it.refused(request)).reason, (await it.failure()).reason] == [Reason.OVERLOADED] * 2
        call.cancel()


@pytest.mark.parametrize("after", [0, 2])
async def test_an_upstream_that_says_nothing_is_given_up(after: int) -> None:
    limits: dict[str, Any] = {"timeout": 0.1} if after else {"first_token_timeout": 0.1}
    async with bench(**limits) as it:
        it.upstream.will(Reply.sse(*text_stream(["Hel"])[:after], Gate()))
        error = await it.failure()
        assert (error.reason, error.upstream) == (Reason.UPSTREAM_TIMEOUT, "u")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_may_be_longer_than_an_answer_in_one_piece(stream: bool) -> None:
    """Nobody holds it here."""
    texts = [letter * 2_000 for letter in "abcdefgh"]
    async with bench(max_answer_bytes=8_000) as it:
        it.upstream.will(Reply.sse(*text_stream(texts)))
        chunks, error = await it.chat(stream)
    if stream:
        assert ("".join(each.text for each in chunks), error) == ("".join(texts), None)
    else:
        assert error is not None
        assert (error.reason, chunks) == (Reason.UPSTREAM_PROTOCOL, [])
        assert "max_answer_bytes" in error.text


@pytest.mark.parametrize("size", [1_000, 4_000, 20_000])
async def test_a_caller_that_reads_nothing_is_sent_what_it_takes(size: int) -> None:
    """The rest stays where it is, in pieces however small it comes, and all of it comes when the caller reads."""
    texts = [f"{at:04}" * (size // 4) for at in range(1_600_000 // size)]
    gates = [Gate() for _ in texts]
    role, *events = text_stream(texts)
    steps = [step for gate, event in zip(gates, events, strict=False) for step in (gate, event)]
    async with bench() as it:
        it.upstream.will(Reply.sse(role, *steps, *events[len(gates) :]))
        call = it.worker.Chat(chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=True), timeout=PATIENCE)
        await call.initial_metadata()
        (request,) = it.upstream.requests
        for gate in gates:
            before = request.taken
            gate.set()
            while request.taken == before:  # noqa: ASYNC110 (one turn, not a wait)
                await asyncio.sleep(0)
            for _ in range(5):  # the turns in which the worker reads what came, by itself
                await asyncio.sleep(0)
        (open_call,) = open_calls()
        assert len(open_call._outgoing) < 64_000  # noqa: SLF001 (nothing else tells)
        said = [chunk.text async for response in call for chunk in response.chunks if chunk.text]
        assert "".join(said) == "".join(texts)


async def test_an_answer_is_over_before_its_body_and_the_connection_serves_again() -> None:
    gate = Gate()
    async with bench() as it:
        it.upstream.will(Reply.sse(*text_stream(["Hel"]), gate), Reply.json(completion()))
        chunks, error = await it.chat()
        assert (len(chunks) > 0, error) == (True, None)
        gate.set()
        async with asyncio.timeout(PATIENCE):
            await it.upstream.requests[0].answered.wait()
        _, error = await it.chat(stream=False)
        assert (error, it.upstream.accepted) == (None, 1)


@pytest.mark.parametrize("whole", [True, False])
async def test_an_answer_that_was_read_leaves_its_connection_to_the_next(whole: bool) -> None:
    request = embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")])
    async with bench() as it:
        for _ in range(3):
            it.upstream.will(Reply.json({"error": {"message": "No."}}, 400))
            await (it.refused(request) if whole else it.failure())
            it.upstream.will(Reply.json(EMBEDDED if whole else completion()))
            await (it.worker.Embed(request, timeout=PATIENCE) if whole else it.chat(stream=False))
        assert it.upstream.accepted == 1


async def test_an_error_in_an_events_frame_is_read() -> None:
    async with bench() as it:
        said = b'data: {"error": {"message": "No such thing.", "code": "c"}}\n\n'
        it.upstream.will(Reply([said], status=400, headers={"content-type": "text/event-stream"}))
        error = await it.failure()
        assert (error.text, error.code, error.upstream_status) == ("No such thing.", "c", 400)


class TestTheBeginning:
    """It says of the answer what there is to say."""

    async def test_of_an_answer_in_one_piece(self) -> None:
        request = embedding_pb2.EmbedRequest(model="m", inputs=[embedding_pb2.EmbedInput(text="x")])
        async with bench(**TRIED) as it:
            it.upstream.will(Reply.json({}, 503), Reply.json(EMBEDDED))
            call = it.worker.Embed(request, timeout=PATIENCE)
            assert dict(await call.initial_metadata())["x-trestle-attempts"] == "2"
            await call

    async def test_of_a_stream(self) -> None:
        gate = Gate()
        async with bench(**TRIED) as it:
            it.upstream.will(Reply.json({}, 503), Reply.sse(gate, *text_stream(["Hel"])))
            call = it.worker.Chat(chat_pb2.ChatRequest(model="m", messages=[HELLO], stream=True), timeout=PATIENCE)
            assert dict(await call.initial_metadata())["x-trestle-attempts"] == "2"
            gate.set()
            assert [each async for each in call]


class TestTries:
    """Another one is made where no other target waits, and told of."""

    async def test_the_second_is_told(self) -> None:
        async with bench(**TRIED) as it:
            it.upstream.will(Reply.json({}, 503), Reply.json(completion()))
            _, error = await it.chat(stream=False)
            assert error is None
            assert it.ended.calls[-1].retries == 1

    async def test_the_log_says_why(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "worker")
        async with bench(**TRIED) as it:
            it.upstream.will(Reply.json({}, 503), Reply.json(completion()))
            await it.chat(stream=False)
        (line,) = [record.__dict__ for record in caplog.records if "once more" in record.getMessage()]
        assert (line["upstream"], line["reason"], line["upstream_status"]) == ("u", "UPSTREAM_OVERLOADED", 503)

    async def test_how_often_it_failed_is_told(self) -> None:
        async with bench(**TRIED) as it:
            it.upstream.always = lambda _: Reply.json({}, 503)
            error = await it.failure()
            assert (error.attempts, len(it.upstream.requests)) == (3, 3)

    async def test_none_where_another_target_waits(self) -> None:
        async with bench(**TRIED) as it:
            it.upstream.always = lambda _: Reply.json({}, 503)
            error = await it.failure(metadata={"x-trestle-attempts-left": "1"})
            assert (error.attempts, len(it.upstream.requests)) == (1, 1)

    async def test_what_is_saved_by_requests_that_went_well_is_spent(self) -> None:
        """Where everything fails only a share is tried again; each request earns some."""
        async with bench(**TRIED) as it:
            it.upstream.always = lambda _: Reply.json({}, 503)
            tried = [(await it.failure()).attempts for _ in range(8)]
            assert tried[-1] == 1
            it.upstream.always = lambda _: Reply.json(completion())
            for _ in range(20):
                await it.chat(stream=False)
            it.upstream.always = lambda _: Reply.json({}, 503)
            assert (await it.failure()).attempts > 1


async def test_models_are_told_with_whose_they_are_and_none_is_hidden_by_a_failure() -> None:
    async with bench() as it:
        it.upstream.will(Reply.json({"data": [{"id": "a"}]}))
        it.other.will(Reply.json({}, 500), Reply.json({"data": [{"id": "b"}]}))
        listed = await it.worker.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE)
        assert [(model.id, model.upstream) for model in listed.models] == [("a", "u")]
        it.upstream.will(Reply.json({"data": [{"id": "a"}]}))
        listed = await it.worker.ListModels(model_pb2.ListModelsRequest(), timeout=PATIENCE)
        assert [(model.id, model.upstream) for model in listed.models] == [("a", "u"), ("b", "v")]

"""A request's way over its route: retries, deadlines, limits in time, rests, clients that stall."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support import services
from support.client import Client, ask
from support.routes import BUSY, Two, ask_body, both_ways, good, route, silent
from support.upstream import PATIENCE, Gate, Reply, chunk, completion, sse, text_stream


@both_ways
async def test_the_worker_tries_again(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, targets=1, upstream={"retries": 2}) as two:
        two.first.will(BUSY, BUSY, good(streamed))
        assert await two.text(streamed) == "Good."
        assert len(two.first.requests) == 3
        assert two.attempts == "3"


async def test_tries_that_are_spent_are_said(tmp_path: Path) -> None:
    async with route(tmp_path, targets=1, upstream={"retries": 1}) as two:
        two.first.will(BUSY, BUSY)
        answer = await two.client.chat(ask("m"))
        assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")
        assert answer.headers["x-trestle-attempts"] == "2"
        assert len(two.first.requests) == 2


@both_ways
async def test_tries_of_both_layers_are_counted(tmp_path: Path, streamed: bool) -> None:
    """Another target, and there the worker once more, as no other one waits."""
    async with route(tmp_path, upstream={"retries": 1}) as two:
        two.first.will(BUSY)
        two.second.will(BUSY, good(streamed))
        assert await two.text(streamed) == "Good."
        assert two.attempts == "3"


@both_ways
async def test_no_retry_while_another_target_waits(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, upstream={"retries": 2}) as two:
        two.first.will(BUSY)
        two.second.will(good(streamed))
        assert await two.text(streamed) == "Good."
        assert (len(two.first.requests), len(two.second.requests)) == (1, 1)


async def test_attempts_are_counted(tmp_path: Path) -> None:
    async with route(tmp_path) as two:
        two.first.will(BUSY)
        two.second.will(good(False))
        assert (await two.client.chat(ask("m"))).headers["x-trestle-attempts"] == "2"


@both_ways
@pytest.mark.parametrize("header", [{"x_request_timeout": "1.0"}, {"grpc_timeout": "1000m"}], ids=["seconds", "grpc"])
async def test_the_deadline_a_request_asks_for(tmp_path: Path, streamed: bool, header: dict[str, str]) -> None:
    async with route(tmp_path, targets=1) as two:
        two.first.will(silent(streamed))
        answer = await two.client.ask(
            "POST", "/v1/chat/completions", ask_body(streamed), **header
        )
        assert (answer.status, answer.json["error"]["code"]) == (504, "deadline_exceeded")
        await (await two.first.request()).closed()


async def test_a_deadline_after_content_is_an_event(tmp_path: Path) -> None:
    async with route(tmp_path, targets=1, timeout=1.5) as two:
        two.first.will(Reply.sse(sse(chunk({"role": "assistant", "content": "So far"})), Gate()))
        stream = await two.client.stream(ask("m"))
        assert (stream.text(), stream.done) == ("So far", False)
        assert stream.error is not None
        assert stream.error["code"] == "deadline_exceeded"
        await (await two.first.request()).closed()


async def test_a_timeout_that_cannot_be(tmp_path: Path) -> None:
    async with route(tmp_path) as two:
        answer = await two.client.chat(ask("m"), x_request_timeout="soon")
        assert (answer.status, answer.json["error"]["param"]) == (400, "x-request-timeout")


@both_ways
async def test_who_does_not_begin_in_time_is_left(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, first_token_timeout=1.0) as two:
        two.first.will(silent(streamed))
        two.second.will(good(streamed))
        assert await two.text(streamed) == "Good."
        await (await two.first.request()).closed()


async def test_silence_between_pieces(tmp_path: Path) -> None:
    async with route(tmp_path, idle_timeout=1.0) as two:
        two.first.will(Reply.sse(sse(chunk({"role": "assistant", "content": "So far"})), Gate()))
        stream = await two.client.stream(ask("m"))
        assert stream.text() == "So far"
        assert stream.error is not None
        assert stream.error["code"] == "upstream_timeout"


async def test_silence_between_pieces_is_none_of_the_first_ones_time(tmp_path: Path) -> None:
    async with route(tmp_path, first_token_timeout=3600, idle_timeout=1.0) as two:
        two.first.will(Reply.sse(sse(chunk({"role": "assistant", "content": "So far"})), Gate()))
        async with asyncio.timeout(PATIENCE):
            stream = await two.client.stream(ask("m"))
        assert stream.error is not None
        assert (stream.text(), stream.error["code"]) == ("So far", "upstream_timeout")


async def test_who_says_only_that_it_will_answer_gains_no_time(tmp_path: Path) -> None:
    async with route(tmp_path, first_token_timeout=2.0) as two:
        begun, content = Gate(), Gate()
        opening = sse(chunk({"role": "assistant", "content": ""}))
        two.first.will(Reply.sse(begun, opening, content, *text_stream(["Late."])))
        two.second.will(good(True))
        asked = asyncio.create_task(two.text(True))
        for gate, seconds in ((begun, 1.5), (content, 1.25)):
            await asyncio.wait([asked], timeout=seconds)
            gate.set()
        assert await asked == "Good."


@both_ways
async def test_an_upstream_with_a_time_of_its_own(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, upstream={"timeout": 1.0}) as two:
        two.first.will(silent(streamed))
        two.second.will(good(streamed))
        assert await two.text(streamed) == "Good."


async def test_a_target_that_keeps_failing_is_rested(tmp_path: Path) -> None:
    settings = {"breaker": {"failures": 2, "rest": 3600}}
    async with route(tmp_path, gateway=settings) as two:
        two.first.will(BUSY, BUSY)
        two.second.will(*(good(False) for _ in range(4)))
        for _ in range(4):
            assert await two.text(False) == "Good."
        assert (len(two.first.requests), len(two.second.requests)) == (2, 4)


@both_ways
async def test_failures_with_answers_between_them_are_no_reason_to_rest(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, gateway={"breaker": {"failures": 2, "rest": 3600}}) as two:
        two.first.will(BUSY, good(streamed, "First."), BUSY, good(streamed, "First."))
        two.second.will(*(good(streamed, "Second.") for _ in range(2)))
        told = [await two.text(streamed) for _ in range(4)]
        assert told == ["Second.", "First.", "Second.", "First."]


@pytest.mark.parametrize("where", ["worker", "upstream"])
async def test_load_that_finds_no_place_is_turned_away(tmp_path: Path, where: str) -> None:
    few = {"max_calls": 1, "queue": 0}
    gate = Gate()
    async with route(tmp_path, targets=1, upstream=few if where == "upstream" else None) as two, _few(
        tmp_path, two, few if where == "worker" else {}
    ) as client:
        two.first.will(Reply([gate, *good(False).steps], headers={"content-type": "application/json"}))
        held = asyncio.create_task(client.chat(ask("m")))
        await two.first.request()
        refused = await client.chat(ask("m"))
        assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        gate.set()
        assert (await held).status == 200


@asynccontextmanager
async def _few(folder: Path, two: Two, few: dict[str, int]) -> AsyncIterator[Client]:
    """A gateway that asks its worker only so much at once; the usual one without such limits."""
    if not few:
        yield two.client
        return
    async with services.worker("openai", folder, {"first": {"base_url": two.first.url, "retries": 0}}) as worker:
        settings = {
            "workers": {"w": {"address": worker.address, **few}},
            "models": [{"name": "m", "targets": [{"worker": "w", "model": "m"}]}],
        }
        async with services.gateway(settings, folder, "few") as gateway, Client(gateway.address) as client:
            yield client


@both_ways
async def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path, streamed: bool) -> None:
    async with route(tmp_path, targets=1, gateway={"stall_timeout": 0.5}) as two:
        piece = sse(chunk({"role": "assistant", "content": "x" * 60_000}))
        whole = Reply.json(completion("x" * 30_000_000))
        two.first.will(Reply.sse(*[piece] * 600, Gate()) if streamed else whole)
        host, _, port = two.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        body = ask_body(streamed)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # noqa: SLF001
        if streamed:
            await (await two.first.request()).closed()
        await two.gateway.logged("cut off")
        writer.transport.abort()


async def test_an_outage_of_every_target_is_not_multiplied(tmp_path: Path) -> None:
    retries = {"ratio": 0.0, "reserve": 3}
    async with route(tmp_path, gateway={"retries": retries, "breaker": {"failures": 1000}}) as two:
        two.first.will(*[BUSY] * 5)
        two.second.will(*[BUSY] * 3)
        answers = [await two.client.chat(ask("m")) for _ in range(5)]
        assert [answer.headers["x-trestle-attempts"] for answer in answers] == ["2", "2", "2", "1", "1"]
        assert {answer.status for answer in answers} == {503}

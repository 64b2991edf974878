"""Errors that an upstream writes into its stream without a frame."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.remote import bench
from support.upstream import Cut, Reply, chunk, sse, text_stream

from trestle.errors import Reason

GOOGLE = {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "34.5s"}]}
GEMINI = {"candidates": [{"content": {"parts": [{"text": "Hel"}]}}], "usageMetadata": {"promptTokenCount": 4}}
ANTHROPIC = {"type": "message_start", "message": {"id": "x", "content": [], "usage": {"input_tokens": 4}}}
BARE: dict[str, tuple[Any, Any]] = {
    "gemini": (GEMINI, {"error": GOOGLE}),
    "openai": (chunk(content="Hel"), {"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}),
    "anthropic": (ANTHROPIC, {"type": "error", "error": {"type": "rate_limit_error", "message": "Slow down."}}),
}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n\r\n", Cut.CLOSE])
async def test_an_error_without_a_frame_is_read(name: str, indent: int | None, end: bytes | Cut) -> None:
    event, said = BARE[name]
    async with bench(name) as it:
        it.upstream.will(Reply.sse(sse(event), json.dumps(said, indent=indent).encode(), end))
        chunks, error = await it.chat()
        assert error is not None
        assert (error.reason, error.text, error.upstream) == (Reason.UPSTREAM_RATE_LIMITED, "Slow down.", "u")
        assert error.retry_after == (34.5 if name == "gemini" else None)
        assert chunks
        assert error.usage is not None
        assert it.counted() == (error.usage.input_tokens, error.usage.output_tokens)


@pytest.mark.parametrize("name", ["gemini", "openai"])
async def test_so_it_is_in_a_list(name: str) -> None:
    async with bench(name) as it:
        it.upstream.will(Reply.sse(sse(BARE[name][0]), json.dumps([{"error": GOOGLE}], indent=2).encode()))
        error = await it.failure()
        assert (error.reason, error.text) == (Reason.UPSTREAM_RATE_LIMITED, "Slow down.")
        assert error.retry_after == 34.5


@pytest.mark.parametrize("name", BARE)
async def test_so_it_is_after_nothing_but_comments(name: str) -> None:
    async with bench(name) as it:
        it.upstream.will(Reply.sse(b": wait\n\n", json.dumps(BARE[name][1]).encode()))
        assert (await it.failure()).reason is Reason.UPSTREAM_RATE_LIMITED


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("said", [b"Bad gateway", b'{"x": 1}', b"[]", b"null", b'{"error": null}', b'{"error": {"me'])
async def test_what_is_no_error_leaves_a_cut_what_it_is(name: str, said: bytes) -> None:
    async with bench(name) as it:
        it.upstream.will(Reply.sse(sse(BARE[name][0]), said))
        assert (await it.failure()).reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize("before", [True, False])
async def test_an_answer_that_is_whole_stays_one(before: bool) -> None:
    *events, _ = text_stream(["Hel", "lo."])
    said = json.dumps(BARE["openai"][1]).encode() + b"\n\n"
    async with bench() as it:
        it.upstream.will(Reply.sse(*events[:1], said, *events[1:]) if before else Reply.sse(*events, said))
        chunks, error = await it.chat()
        assert ("".join(each.text for each in chunks), error) == ("Hello.", None)

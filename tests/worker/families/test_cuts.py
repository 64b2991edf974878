"""Answers of every family that end too early, at each of their bytes: never a finish, and the usage is known or an
estimate that says so."""

from __future__ import annotations

from typing import Any

import pytest
from support.dialects import RICH, Dialect

from trestle.errors import CallError, Reason
from worker.sse import SseParser

SAID = {"text", "reasoning", "tool_call"}

every_family = pytest.mark.parametrize("dialect", RICH, ids=[each.name for each in RICH])


def feed(dialect: Dialect, data: bytes, clean: bool | None) -> tuple[list[Any], Any, CallError | None]:
    """The chunks of these bytes, the decoder, and its error, if one came. clean: how the body ended; None: not yet."""
    decoder = dialect.decoder(True)
    response = dialect.response()
    try:
        for event in SseParser(1 << 20).feed(data):
            decoder.feed(event, response.chunks)
        if clean is not None:
            decoder.close(clean, response.chunks)
    except CallError as error:
        return list(response.chunks), decoder, error
    return list(response.chunks), decoder, None


def finished(chunks: list[Any]) -> bool:
    return any(chunk.WhichOneof("event") == "finish" for chunk in chunks)


def assert_accounted(dialect: Dialect, chunks: list[Any], usage: Any) -> None:
    """What was said is paid for: by the upstream's own numbers, else by an estimate that says so."""
    if not chunks:
        return
    assert usage is not None
    assert usage.input_tokens > 0
    told = [chunk.usage for chunk in chunks if chunk.WhichOneof("event") == "usage"]
    assert usage.estimated or usage == told[-1]
    if any(chunk.WhichOneof("event") in SAID for chunk in chunks):
        assert usage.output_tokens > 0


@every_family
@pytest.mark.parametrize("clean", [True, False], ids=["clean end", "closed"])
def test_only_a_proper_end_is_one(dialect: Dialect, clean: bool) -> None:
    enough = b"".join(dialect.events[: dialect.ended if clean else dialect.closed])
    proper = len(enough) - enough.endswith(b"\r\n")  # a CR ends the line already
    ends = dialect.closed <= len(dialect.events) or clean
    for at in range(len(dialect.body) + 1):
        chunks, decoder, error = feed(dialect, dialect.body[:at], clean)
        if ends and at >= proper:
            assert error is None, f"at {at}: {error}"
            assert finished(chunks), f"at {at}"
            assert decoder.done
            continue
        assert error is not None, f"at {at} of {len(dialect.body)}: looks like an end"
        assert error.reason is Reason.UPSTREAM_TRUNCATED, f"at {at}"
        assert not finished(chunks), f"at {at}"
        assert_accounted(dialect, chunks, error.usage)


@every_family
def test_broken_off(dialect: Dialect) -> None:
    """The connection was lost: the decoder is not asked for an end, and has made none by itself before the upstream's
    terminal event."""
    for at in range(len(dialect.body)):
        chunks, decoder, error = feed(dialect, dialect.body[:at], None)
        assert error is None, f"at {at}"
        assert not decoder.done, f"at {at}"
        assert not finished(chunks), f"at {at}"
        assert_accounted(dialect, chunks, decoder.usage)


@every_family
@pytest.mark.parametrize("body", [b"", b"\xff", b"x", b'"x"', b"{}", b"[[]]", b"[" * 100_000, b"[{}, 1]"])
def test_what_is_no_error(dialect: Dialect, body: bytes) -> None:
    assert dialect.decoder(True).failure_in(body) is None


@every_family
def test_a_whole_answer(dialect: Dialect) -> None:
    """Its end is its JSON's: no part of it is an answer."""
    for at in range(len(dialect.whole)):
        decoder, response = dialect.decoder(False), dialect.response()
        with pytest.raises(CallError) as caught:
            decoder.feed_whole(dialect.whole[:at], response.chunks)
        assert caught.value.reason is Reason.UPSTREAM_PROTOCOL
        assert not finished(list(response.chunks))

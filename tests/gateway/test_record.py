"""What a request cost, as its record tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest

from gateway.record import Outcome, Record, add
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

TOLD = chat_pb2.Usage(input_tokens=10, output_tokens=1, total_tokens=11)


@dataclass
class Tried:
    """As much of `gateway.routed.Attempt` as matters here."""

    error: CallError | None = None
    usage: chat_pb2.Usage | None = None
    began: bool = False


@dataclass
class Call:
    attempts: list[Tried]
    current: Tried | None


@dataclass
class Said:
    usage: chat_pb2.Usage | None = None
    chars: int = 0
    finish: str = ""
    model: str = ""


def record(*attempts: Tried, answer: Said | None = None, error: CallError | None = None) -> Record:
    made = Record(cast(Any, None), "chat")
    made.call = cast(Any, Call(list(attempts), attempts[-1] if attempts else None))
    made.request = chat_pb2.ChatRequest(messages=[chat_pb2.Message(text="twelve chars")])
    made.answer = answer
    made.error = error
    made.end()
    return made


def used(made: Record) -> list[chat_pb2.Usage | None]:
    return [made.used(attempt) for attempt in made.attempts]


def failed(reason: Reason, usage: chat_pb2.Usage | None = None) -> CallError:
    return CallError(reason, "no", usage=usage)


def test_an_answer_costs_what_it_says() -> None:
    made = record(Tried(began=True), answer=Said(TOLD, 400))
    assert (made.outcome, used(made), made.total()) == (Outcome.DONE, [TOLD], TOLD)


def test_reasoning_that_is_counted_beside_the_output_is_paid_for_too() -> None:
    """xAI's completion_tokens leave it out; its total_tokens do not."""
    told = chat_pb2.Usage(input_tokens=10, output_tokens=5, reasoning_tokens=200, total_tokens=215)
    before = chat_pb2.Usage.FromString(told.SerializeToString())
    made = record(Tried(began=True), answer=Said(told, 20))
    counted = chat_pb2.Usage(input_tokens=10, output_tokens=205, reasoning_tokens=200)
    assert (used(made), made.total()) == ([counted], counted)
    assert told == before  # which the client is told


@pytest.mark.parametrize("total", [None, 210, 214, 216])
def test_reasoning_that_the_total_does_not_add_is_in_the_output(total: int | None) -> None:
    told = chat_pb2.Usage(input_tokens=10, output_tokens=200, reasoning_tokens=5, total_tokens=total)
    assert used(record(Tried(began=True), answer=Said(told, 20))) == [told]


def test_an_answer_that_says_nothing_is_estimated() -> None:
    (usage,) = used(record(Tried(began=True), answer=Said(None, 8)))
    assert usage == chat_pb2.Usage(input_tokens=3 + 4, output_tokens=2, estimated=True)


def test_a_cancelled_answer_costs_at_least_what_was_sent() -> None:
    made = record(Tried(began=True), answer=Said(TOLD, 400))
    made.cancelled = True
    assert made.outcome is Outcome.CANCELLED
    assert used(made) == [chat_pb2.Usage(input_tokens=10, output_tokens=100, estimated=True)]


def test_what_was_told_at_the_end_is_not_guessed_at() -> None:
    told = chat_pb2.Usage(input_tokens=10, output_tokens=500)
    made = record(Tried(began=True), answer=Said(told, 400))
    made.cancelled = True
    assert used(made) == [told]


@pytest.mark.parametrize(
    ("attempt", "cost"),
    [
        (Tried(failed(Reason.UPSTREAM_RATE_LIMITED)), None),
        (Tried(failed(Reason.UPSTREAM_UNREACHABLE)), None),
        (Tried(failed(Reason.UPSTREAM_FAILED, TOLD)), TOLD),
        (Tried(failed(Reason.UPSTREAM_TRUNCATED), usage=TOLD), TOLD),
        (Tried(failed(Reason.UPSTREAM_TRUNCATED)), chat_pb2.Usage(input_tokens=7, estimated=True)),
        (Tried(failed(Reason.UPSTREAM_FAILED), began=True), chat_pb2.Usage(input_tokens=7, estimated=True)),
        (Tried(), chat_pb2.Usage(input_tokens=7, estimated=True)),
    ],
)
def test_an_attempt_that_gave_no_answer(attempt: Tried, cost: chat_pb2.Usage | None) -> None:
    made = record(attempt, Tried(began=True), answer=Said(TOLD))
    assert used(made) == [cost, TOLD]


def test_a_request_that_never_came_to_a_worker_is_refused() -> None:
    made = record(error=failed(Reason.INVALID_REQUEST))
    assert (made.outcome, made.total()) == (Outcome.REFUSED, None)


def test_a_failure_is_told_even_when_its_client_has_seen_a_part() -> None:
    made = record(Tried(failed(Reason.UPSTREAM_TRUNCATED), began=True), answer=Said(None, 40))
    made.error = made.attempts[0].error
    assert made.outcome is Outcome.FAILED
    assert used(made) == [chat_pb2.Usage(input_tokens=7, output_tokens=10, estimated=True)]


def test_sums_keep_parts_and_marks() -> None:
    total = add(
        [
            chat_pb2.Usage(input_tokens=1, output_tokens=2, cache_read_tokens=1, total_tokens=3),
            chat_pb2.Usage(input_tokens=10, output_tokens=20, reasoning_tokens=5, estimated=True),
        ]
    )
    assert total == chat_pb2.Usage(
        input_tokens=11, output_tokens=22, cache_read_tokens=1, reasoning_tokens=5, estimated=True
    )
    assert add([]) is None

"""The upstream's script, and the load client's eye for what is missing from it."""

from __future__ import annotations

import json

import pytest

from bench import answers


@pytest.mark.parametrize(
    ("chunks", "interval_ms", "size", "stream"),
    [(1, 0, 0, False), (200, 0, 0, True), (64, 20, 0, True), (64, 20, 500, True), (3, 0, 9, True)],
)
def test_a_request_says_what_is_to_be_answered(chunks: int, interval_ms: int, size: int, stream: bool) -> None:
    model = answers.model_name(chunks, interval_ms, size)
    body = answers.request_body(model, stream)
    wanted = answers.Script(model, chunks, interval_ms, size, stream)
    assert answers.script(body) == wanted
    # As another program would write the same request.
    assert answers.script(json.dumps(json.loads(body), separators=(",", ":")).encode()) == wanted


def test_sizes() -> None:
    _, *texts, _, _, _ = answers.stream_events("m", 4, 100)
    assert all(len(json.loads(text[6:])["choices"][0]["delta"]["content"]) == 100 for text in texts)
    assert answers.fault_of_stream(200, b"".join(answers.stream_events("m", 4, 100)), 4) == ""
    longer = len(answers.request_body("m", stream=False, prompt_bytes=1000))
    assert longer - len(answers.request_body("m", stream=False)) == 1000


def test_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no model"):
        answers.script(answers.request_body("gpt-4o", stream=False))


def test_whole_answers_have_no_fault() -> None:
    assert answers.fault_of_whole(200, answers.whole_answer("m")) == ""
    events = answers.stream_events("m", 200)
    assert answers.fault_of_stream(200, b"".join(events), 200) == ""
    assert b"".join(events).count(answers.MARK) == 200
    assert answers.MARK not in answers.whole_answer("m")


ROLE, *TEXTS, FINISH, USAGE, DONE = answers.stream_events("m", 4)


@pytest.mark.parametrize(
    ("events", "fault"),
    [
        ([ROLE, *TEXTS[:2], TEXTS[3], FINISH, USAGE, DONE], "3 chunks of 4"),
        ([ROLE, *TEXTS, TEXTS[3], FINISH, USAGE, DONE], "5 chunks of 4"),
        ([ROLE, TEXTS[1], TEXTS[0], *TEXTS[2:], FINISH, USAGE, DONE], "4 chunks of 4 in order"),
        ([ROLE, *TEXTS, USAGE, DONE], "no finish"),
        ([ROLE, *TEXTS, FINISH, USAGE], "no [DONE]"),
        ([ROLE, *TEXTS, FINISH, USAGE, DONE, TEXTS[0]], "5 chunks of 4"),
        ([], "0 chunks of 4"),
    ],
)
def test_a_stream_that_is_not_whole_has_a_fault(events: list[bytes], fault: str) -> None:
    assert answers.fault_of_stream(200, b"".join(events), 4).startswith(fault)


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (500, answers.whole_answer("m"), "status 500"),
        (200, answers.whole_answer("m")[:-40], "another answer"),
        (200, answers.whole_answer("m").replace(b"climbed", b"fell"), "another answer"),
        (200, answers.whole_answer("m").replace(b"stop", b"length"), "another answer"),
        (200, b"[]", "another answer"),
    ],
)
def test_an_answer_that_is_not_the_upstreams_has_a_fault(status: int, body: bytes, fault: str) -> None:
    assert answers.fault_of_whole(status, body).startswith(fault)


def test_an_error_is_not_a_stream() -> None:
    assert answers.fault_of_stream(429, b"slow down", 1) == "status 429: b'slow down'"

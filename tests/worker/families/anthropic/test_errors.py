"""What an answer that is not 2xx means."""

from __future__ import annotations

import json

import pytest
from google.rpc import code_pb2

from trestle.errors import Reason
from worker.families.anthropic.errors import decode_error

NOON = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def body(kind: str, message: str = "Something.") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}).encode()


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (400, "invalid_request_error", Reason.INVALID_REQUEST),
        (401, "authentication_error", Reason.UPSTREAM_CREDENTIAL),
        (402, "billing_error", Reason.UPSTREAM_QUOTA),
        (403, "permission_error", Reason.UPSTREAM_CREDENTIAL),
        (404, "not_found_error", Reason.INVALID_REQUEST),
        (413, "request_too_large", Reason.REQUEST_TOO_LARGE),
        (429, "rate_limit_error", Reason.UPSTREAM_RATE_LIMITED),
        (500, "api_error", Reason.UPSTREAM_FAILED),
        (504, "timeout_error", Reason.UPSTREAM_TIMEOUT),
        (529, "overloaded_error", Reason.UPSTREAM_OVERLOADED),
        (500, "overloaded_error", Reason.UPSTREAM_OVERLOADED),
    ],
)
def test_by_status(status: int, kind: str, reason: Reason) -> None:
    error = decode_error(status, {}, body(kind), "claude")
    assert (error.reason, error.type, error.upstream_status) == (reason, kind, status)
    assert (error.upstream, error.upstream_request_id) == ("claude", "req_1")


@pytest.mark.parametrize(
    ("message", "reason", "code", "param"),
    [
        ("prompt is too long: 3 > 2", Reason.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded", "messages"),
        ("Output blocked by content filtering policy", Reason.CONTENT_REJECTED, "content_filter", None),
        ("Your credit balance is too low to access the API.", Reason.UPSTREAM_QUOTA, None, None),
        ("You have reached your specified API usage limits. You will regain", Reason.UPSTREAM_QUOTA, None, None),
        ("This organization has been disabled.", Reason.UPSTREAM_CREDENTIAL, None, None),
        ("messages.1.content.0.type: Expected `thinking`", Reason.INVALID_REQUEST, None, "messages"),
        ("stop_sequences: each must contain non-whitespace", Reason.INVALID_REQUEST, None, "stop"),
        ("max_tokens: 9 > 8", Reason.INVALID_REQUEST, None, "max_tokens"),
        ("Nothing of the kind", Reason.INVALID_REQUEST, None, None),
    ],
)
def test_by_what_a_refusal_says(message: str, reason: Reason, code: str | None, param: str | None) -> None:
    error = decode_error(400, {}, body("invalid_request_error", message), "claude")
    assert (error.reason, error.code, error.param) == (reason, code, param)
    assert (error.message == message) is (reason not in (Reason.UPSTREAM_QUOTA, Reason.UPSTREAM_CREDENTIAL))


def test_an_unknown_model() -> None:
    error = decode_error(404, {}, body("not_found_error", "model: claude-x"), "claude")
    assert (error.code, error.param, error.message) == ("model_not_found", "model", "model: claude-x")


def test_an_unknown_file() -> None:
    error = decode_error(404, {}, body("not_found_error", "File not found: file_1"), "claude")
    assert (error.code, error.param, error.message) == ("not_found", None, "File not found: file_1")
    assert error.status == code_pb2.NOT_FOUND


@pytest.mark.parametrize("found", [b"", b"<html>Bad gateway</html>", b"[1]", b'{"error": 1}'])
def test_a_body_that_is_not_theirs(found: bytes) -> None:
    error = decode_error(502, {"request-id": "req_2"}, found, "claude")
    assert (error.reason, error.upstream_request_id) == (Reason.UPSTREAM_OVERLOADED, "req_2")
    assert "502" in error.message


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "7", "anthropic-ratelimit-requests-remaining": "0"}, 7.0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:01:00Z",
                "anthropic-ratelimit-tokens-remaining": "5",
                "anthropic-ratelimit-tokens-reset": "2027-01-15T09:00:00Z",
            },
            60.0,
        ),
        ({"anthropic-ratelimit-requests-remaining": "0", "anthropic-ratelimit-requests-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], wait: float | None) -> None:
    error = decode_error(429, headers, body("rate_limit_error"), "claude", now=lambda: NOON)
    assert error.retry_after == wait


def test_what_an_error_says_beside_it_is_kept() -> None:
    said = {"type": "invalid_request_error", "message": "No.", "details": {"error_visibility": "user_facing"}}
    whole = json.dumps({"type": "error", "error": said, "request_id": "req_1"}).encode()
    assert decode_error(400, {}, whole, "claude").extra == {"details": {"error_visibility": "user_facing"}}
    assert decode_error(401, {}, whole, "claude").extra == {}
    assert decode_error(400, {}, b'{"message": "No.", "details": 1}', "claude").extra == {}

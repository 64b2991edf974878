"""Failures as OpenAI says them."""

from __future__ import annotations

import json
import re
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from support.services import ROOT

from gateway.openai.errors import (
    UNFINISHED,
    conflict,
    error_answer,
    error_body,
    http_status,
    model_not_found,
    not_found,
    refusal,
)
from trestle.errors import STATUS, CallError, Reason

# reason -> HTTP status, type, code
TABLE: dict[Reason, tuple[int, str, str | None]] = {
    Reason.INVALID_REQUEST: (400, "invalid_request_error", None),
    Reason.UNSUPPORTED: (400, "invalid_request_error", "unsupported_parameter"),
    Reason.MODEL_NOT_FOUND: (404, "not_found_error", None),
    Reason.CONTEXT_LENGTH_EXCEEDED: (400, "invalid_request_error", "context_length_exceeded"),
    Reason.CONTENT_REJECTED: (400, "invalid_request_error", "content_filter"),
    Reason.REQUEST_TOO_LARGE: (413, "invalid_request_error", None),
    Reason.UPSTREAM_REJECTED: (400, "invalid_request_error", None),
    Reason.UNAUTHENTICATED: (401, "authentication_error", None),
    Reason.PERMISSION_DENIED: (403, "permission_error", None),
    Reason.UPSTREAM_RATE_LIMITED: (429, "rate_limit_exceeded", None),
    Reason.UPSTREAM_OVERLOADED: (503, "service_unavailable", "upstream_overloaded"),
    Reason.UPSTREAM_UNREACHABLE: (503, "service_unavailable", "upstream_unreachable"),
    Reason.UPSTREAM_TIMEOUT: (504, "timeout", "upstream_timeout"),
    Reason.UPSTREAM_PROTOCOL: (502, "bad_gateway", "upstream_protocol"),
    Reason.UPSTREAM_TRUNCATED: (503, "service_unavailable", "upstream_truncated"),
    Reason.UPSTREAM_FAILED: (502, "bad_gateway", "upstream_failed"),
    Reason.UPSTREAM_CREDENTIAL: (502, "bad_gateway", "upstream_credential"),
    Reason.UPSTREAM_QUOTA: (502, "bad_gateway", "upstream_quota"),
    Reason.OVERLOADED: (503, "service_unavailable", "overloaded"),
    Reason.INTERNAL: (500, "internal_server_error", None),
    Reason.DEADLINE_EXCEEDED: (504, "timeout", "deadline_exceeded"),
    Reason.UNIMPLEMENTED: (501, "not_implemented", None),
    Reason.RATE_LIMITED: (429, "rate_limit_exceeded", None),
}
# What gRPC itself says, without details of ours.
FOREIGN: dict[grpc.StatusCode, tuple[int, str, str]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (504, "timeout", "deadline_exceeded"),
    grpc.StatusCode.UNAVAILABLE: (503, "service_unavailable", "worker_unavailable"),
    grpc.StatusCode.CANCELLED: (503, "service_unavailable", "worker_unavailable"),
    grpc.StatusCode.UNKNOWN: (502, "bad_gateway", "worker_failed"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (502, "bad_gateway", "worker_failed"),
    grpc.StatusCode.UNAUTHENTICATED: (502, "bad_gateway", "worker_failed"),
    grpc.StatusCode.UNIMPLEMENTED: (502, "bad_gateway", "worker_failed"),
    grpc.StatusCode.INTERNAL: (502, "bad_gateway", "worker_failed"),
}


def error_of(body: bytes) -> dict[str, Any]:
    value = json.loads(body)
    assert set(value) == {"error"}
    assert set(value["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = value["error"]
    return error


def test_no_reason_is_forgotten() -> None:
    assert set(TABLE) == set(Reason) - {Reason.UNSPECIFIED}


@pytest.mark.parametrize(("reason", "expected"), TABLE.items())
def test_each_reason(reason: Reason, expected: tuple[int, str, str | None]) -> None:
    answer = error_answer(CallError(reason, "It failed.", param="n"))
    error = error_of(answer.body)
    assert (answer.status, error["type"], error["code"]) == expected
    assert (error["message"], error["param"]) == ("It failed.", "n")


def test_the_contracts_page_says_the_same() -> None:
    rows = re.findall(
        r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| (\d+) \| `(\w+)` \| (?:`(\w+)`)? ?\|$",
        (ROOT / "docs" / "contract.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    told = {Reason(reason): (grpc, int(http), kind, code or None) for reason, grpc, http, kind, code in rows}
    assert told == {reason: (code_pb2.Code.Name(STATUS[reason]), *expected) for reason, expected in TABLE.items()}


@pytest.mark.parametrize(("status", "expected"), FOREIGN.items())
def test_what_grpc_says_itself(status: grpc.StatusCode, expected: tuple[int, str, str]) -> None:
    """Its text is not for callers: it names addresses."""
    error = CallError.from_status(status.value[0], "failed to connect to 10.0.0.7:50051", None)
    told = error_of(error_body(error))
    assert (http_status(error), told["type"], told["code"]) == expected
    assert "10.0.0.7" not in told["message"]


def test_the_upstreams_own_code_is_kept() -> None:
    error = CallError(Reason.UPSTREAM_RATE_LIMITED, "Slow.", code="tokens_per_minute")
    assert error_of(error_body(error))["code"] == "tokens_per_minute"


def test_an_empty_account_has_a_type_of_its_own() -> None:
    error = error_of(error_body(CallError(Reason.UPSTREAM_RATE_LIMITED, "Pay.", code="insufficient_quota")))
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")


def test_an_unknown_model() -> None:
    answer = error_answer(model_not_found('a"b'))
    error = error_of(answer.body)
    assert (answer.status, error["type"]) == (404, "invalid_request_error")
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    assert 'a"b' in error["message"]


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (None, {}),
        (0.0, {"retry-after": "0", "retry-after-ms": "0"}),
        (0.0401, {"retry-after": "1", "retry-after-ms": "41"}),
        (7.0, {"retry-after": "7", "retry-after-ms": "7000"}),
    ],
)
def test_the_time_to_wait(seconds: float | None, headers: dict[str, str]) -> None:
    answer = error_answer(CallError(Reason.UPSTREAM_RATE_LIMITED, "Slow.", retry_after=seconds))
    assert answer.headers == headers


def test_when_another_try_is_in_vain() -> None:
    failed = CallError(Reason.UPSTREAM_FAILED, "No.")
    assert "x-should-retry" not in error_answer(failed).headers
    assert error_answer(failed, final=True).headers["x-should-retry"] == "false"
    assert error_answer(CallError(Reason.UNIMPLEMENTED, "No.")).headers["x-should-retry"] == "false"


def test_what_never_became_a_call() -> None:
    answer = refusal(405, "No.", "method_not_allowed", {"allow": "POST"})
    error = error_of(answer.body)
    assert (answer.status, error["type"], error["code"]) == (405, "invalid_request_error", "method_not_allowed")
    assert answer.headers == {"allow": "POST"}


def test_a_body_that_does_not_arrive_may_be_sent_again() -> None:
    """408, which SDKs repeat: as for any other that comes too late, but for the status."""
    assert http_status(CallError(Reason.INVALID_REQUEST, "Where is it?", code=UNFINISHED)) == 408


def test_what_is_not_there_and_what_is_there_already() -> None:
    absent, present = error_answer(not_found("agent", "x")), error_answer(conflict("name", "It is taken."))
    told = [(answer.status, *error_of(answer.body).values()) for answer in (absent, present)]
    assert told == [
        (404, "There is no agent 'x'.", "not_found_error", None, "not_found"),
        (409, "It is taken.", "conflict", "name", "conflict"),
    ]


def test_a_days_limit_is_not_worth_waiting_for() -> None:
    daily = CallError(Reason.RATE_LIMITED, "Spent.", code="insufficient_quota", retry_after=9.0)
    minute = CallError(Reason.RATE_LIMITED, "Slow.", code="rate_limit_exceeded", retry_after=9.0)
    assert error_answer(daily).headers["x-should-retry"] == "false"
    assert "x-should-retry" not in error_answer(minute).headers
    upstreams = CallError(Reason.UPSTREAM_RATE_LIMITED, "Spent.", code="insufficient_quota")
    assert "x-should-retry" not in error_answer(upstreams).headers


def test_the_upstreams_own_members_stand_beside_ours_and_never_for_them() -> None:
    extra = {"failed_generation": "a\nb", "code": "theirs", "message": "theirs", "innererror": {"code": 1}}
    error = CallError(Reason.INVALID_REQUEST, "No.", code="tool_use_failed", extra=extra)
    body = error_body(error)
    assert b"\n" not in body
    assert json.loads(body)["error"] == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": None,
        "code": "tool_use_failed",
        "failed_generation": "a\nb",
        "innererror": {"code": 1},
    }

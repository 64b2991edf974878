"""What Google's refusals mean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.gemini import UPSTREAM

from trestle.errors import CallError, Reason
from worker.families.gemini import FAMILY

Object = dict[str, Any]


def error(status: int, message: str = "Said.", word: str = "", *details: Object, **headers: str) -> CallError:
    body = {"error": {"code": status, "message": message, "status": word, "details": list(details)}}
    return FAMILY.decode_error(status, headers, json.dumps(body).encode(), UPSTREAM)


@pytest.mark.parametrize(
    ("status", "word", "reason"),
    [
        (400, "INVALID_ARGUMENT", Reason.INVALID_REQUEST),
        (400, "FAILED_PRECONDITION", Reason.INVALID_REQUEST),
        (401, "UNAUTHENTICATED", Reason.UPSTREAM_CREDENTIAL),
        (403, "PERMISSION_DENIED", Reason.UPSTREAM_CREDENTIAL),
        (404, "NOT_FOUND", Reason.MODEL_NOT_FOUND),
        (409, "ABORTED", Reason.UPSTREAM_REJECTED),
        (429, "RESOURCE_EXHAUSTED", Reason.UPSTREAM_RATE_LIMITED),
        (499, "CANCELLED", Reason.UPSTREAM_REJECTED),
        (500, "INTERNAL", Reason.UPSTREAM_FAILED),
        (503, "UNAVAILABLE", Reason.UPSTREAM_OVERLOADED),
        (504, "DEADLINE_EXCEEDED", Reason.UPSTREAM_TIMEOUT),
        (302, "", Reason.UPSTREAM_PROTOCOL),
    ],
)
def test_by_status(status: int, word: str, reason: Reason) -> None:
    found = error(status, word=word)
    assert (found.reason, found.upstream_status, found.type) == (reason, status, word or None)
    assert (found.message == "Said.") is (reason is not Reason.UPSTREAM_CREDENTIAL)


@pytest.mark.parametrize(
    ("status", "message", "reason", "code", "param"),
    [
        (
            400,
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            Reason.CONTEXT_LENGTH_EXCEEDED,
            "context_length_exceeded",
            "messages",
        ),
        (400, "Request payload size exceeds the limit: 20971520 bytes.", Reason.REQUEST_TOO_LARGE, None, None),
        (400, "API key not valid. Please pass a valid API key.", Reason.UPSTREAM_CREDENTIAL, None, None),
        (400, "API key expired. Please renew the API key.", Reason.UPSTREAM_CREDENTIAL, None, None),
        (400, "Please enable billing on your project.", Reason.UPSTREAM_QUOTA, None, None),
        (400, "User location is not supported for the API use.", Reason.UPSTREAM_FAILED, None, None),
        (403, "You do not have permission to access the File x.", Reason.INVALID_REQUEST, None, None),
        (403, "CachedContent not found (or permission denied)", Reason.INVALID_REQUEST, None, None),
        (404, "models/x is not found for API version v1beta", Reason.MODEL_NOT_FOUND, "model_not_found", "model"),
    ],
)
def test_by_words(status: int, message: str, reason: Reason, code: str | None, param: str | None) -> None:
    found = error(status, message)
    assert (found.reason, found.code, found.param) == (reason, code, param)


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("API_KEY_INVALID", Reason.UPSTREAM_CREDENTIAL),
        ("API_KEY_SERVICE_BLOCKED", Reason.UPSTREAM_CREDENTIAL),
        ("ACCESS_TOKEN_EXPIRED", Reason.UPSTREAM_CREDENTIAL),
        ("SERVICE_DISABLED", Reason.UPSTREAM_CREDENTIAL),
        ("BILLING_DISABLED", Reason.UPSTREAM_QUOTA),
        ("SOMETHING_ELSE", Reason.INVALID_REQUEST),
    ],
)
def test_by_error_info(why: str, reason: Reason) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": why, "domain": "googleapis.com"}
    found = error(400, "About our own key AIza.", "INVALID_ARGUMENT", info)
    assert found.reason is reason
    assert ("AIza" in found.message) is (reason is Reason.INVALID_REQUEST)


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("contents[0].parts[1].inline_data", "messages"),
        ("generation_config.response_json_schema", "response_format"),
        ("generation_config.temperature", "temperature"),
        ("tools[0].function_declarations[0].parameters", "tools"),
        ("tool_config.function_calling_config", "tool_choice"),
        ("something.new", None),
    ],
)
def test_the_field_in_the_clients_words(field: str, param: str | None) -> None:
    request = {"@type": "t/google.rpc.BadRequest", "fieldViolations": [{"field": field, "description": "No."}]}
    assert error(400, "Invalid.", "INVALID_ARGUMENT", request).param == param


class TestWaiting:
    def test_as_google_says_it(self) -> None:
        assert error(429, "Slow down.", "", {"retryDelay": "1.5s"}, **{"retry-after": "9"}).retry_after == 1.5

    def test_as_a_header_says_it(self) -> None:
        assert error(429, "Slow down.", "", **{"retry-after": "9"}).retry_after == 9

    def test_as_the_words_say_it(self) -> None:
        assert error(429, "Please retry in 48.9s.").retry_after == 48.9

    @pytest.mark.parametrize("delay", ["soon", "xs", "-1s", "nans", 5, None])
    def test_odd_delays(self, delay: Any) -> None:
        assert error(429, "Slow down.", "", {"retryDelay": delay}).retry_after in (None, 0)

    @pytest.mark.parametrize(
        ("violation", "code"),
        [
            ({"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}, "insufficient_quota"),
            ({"quotaId": "GenerateRequestsPerMinute", "quotaValue": "0"}, "insufficient_quota"),
            ({"quotaId": "GenerateRequestsPerMinute", "quotaValue": "10"}, None),
        ],
    )
    def test_a_quota_that_is_used_up(self, violation: Object, code: str | None) -> None:
        assert error(429, "Quota.", "RESOURCE_EXHAUSTED", {"violations": [violation]}).code == code

    @pytest.mark.parametrize(
        "message",
        [
            "Your prepayment credits are depleted. Please go to AI Studio at https://ai.studio/projects.",
            "Your project has exceeded its monthly spending cap. Please go to AI Studio.",
            "Your billing account has exceeded its monthly spending cap.",
        ],
    )
    def test_an_account_that_is_used_up(self, message: str) -> None:
        """Nothing but the words tells it from too many requests."""
        found = error(429, message, "RESOURCE_EXHAUSTED")
        assert (found.reason, found.code) == (Reason.UPSTREAM_RATE_LIMITED, "insufficient_quota")
        assert (found.message, found.retry_after) == (message, None)


def test_the_project_is_nobodys_business() -> None:
    message = "Publisher Model `projects/our-own/locations/us-central1/publishers/google/models/x` was not found."
    assert error(404, message).message == "Publisher Model `publishers/google/models/x` was not found."


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'[{"error": {"code": 400, "message": "In a list.", "status": "INVALID_ARGUMENT"}}]', "In a list."),
        (b'{"error": "A string."}', "A string."),
        (b"<html>Bad gateway</html>", "The upstream answered with status 400: <html>Bad gateway</html>"),
        (b"", "The upstream answered with status 400."),
        (b"[]", "The upstream answered with status 400: []"),
        (b'{"error": {"details": "x", "message": 1}}', None),
        (b'{"error": {"details": [1, {"violations": 5, "fieldViolations": {"a": 1}, "reason": 2}]}}', None),
        (b"\xff\xfe", None),
        (b"[" * 100_000, None),
    ],
)
def test_any_body(body: bytes, message: str | None) -> None:
    found = FAMILY.decode_error(400, {"x-request-id": "r"}, body, UPSTREAM)
    assert found.reason is Reason.INVALID_REQUEST
    assert (found.upstream, found.upstream_request_id) == ("google", "r")
    assert message is None or found.message == message


def test_the_details_are_kept_without_our_project() -> None:
    quota = {"@type": "x.QuotaFailure", "violations": [{"subject": "projects/our-own", "quotaId": "PerMinute"}]}
    info = {"@type": "x.ErrorInfo", "metadata": {"consumer": "projects/12345", 'a "projects/b\\': "é\n"}}
    kept = error(429, "Slow down.", "RESOURCE_EXHAUSTED", quota, info).extra
    assert kept == {
        "details": [
            {"@type": "x.QuotaFailure", "violations": [{"subject": "projects/-", "quotaId": "PerMinute"}]},
            {"@type": "x.ErrorInfo", "metadata": {"consumer": "projects/-", 'a "projects/-\\': "é\n"}},
        ]
    }
    assert error(403, "No.", "PERMISSION_DENIED", info).extra == {}


def test_details_too_deep_to_read_are_no_failure_of_ours() -> None:
    deep = b'{"error": {"code": 429, "message": "Slow down.", "details": ' + b"[" * 900 + b"]" * 900 + b"}}"
    assert FAMILY.decode_error(429, {}, deep, UPSTREAM).reason is Reason.UPSTREAM_RATE_LIMITED

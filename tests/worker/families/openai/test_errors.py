"""What vendors' refusals mean: by their status, and by what they say beside it."""

from __future__ import annotations

import json

import pytest
from support.openai import JSON, UPSTREAM

from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2
from worker.families.openai import FAMILY

REQUEST = chat_pb2.ChatRequest(model="m", messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, text="a")])


def refused(status: int, body: JSON | list[JSON], **headers: str) -> CallError:
    """The meaning of this answer. headers: with _ for -."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return FAMILY.decode_error(status, named, json.dumps(body).encode(), UPSTREAM)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, {"type": "exceed_context_size_error", "message": "Too much.", "code": 400}),
        (400, {"message": "request (9 tokens) exceeds the available context size (8 tokens)"}),
        (400, {"message": "This model's maximum prompt length is 8 but the request contains 9 tokens."}),
        (400, {"message": "Your request exceeded model token limit: 8"}),
        (400, {"message": "prompt is too long: 9 tokens > 8 maximum"}),
        (422, {"message": "The maximum context length is 8."}),
        (422, {"message": "`inputs` tokens + `max_new_tokens` must be <= 8. Given: 6 and 4", "type": "validation"}),
        (413, {"code": "context_length_exceeded", "message": "Too much."}),
        (400, {"message": "No.", "code": 400, "metadata": {"error_type": "context_length_exceeded"}}),
        (400, {"message": "No.", "code": 400, "metadata": {"raw": "The maximum context length is 8."}}),
    ],
)
def test_a_context_too_long(status: int, said: JSON) -> None:
    error = refused(status, {"error": said})
    assert (error.reason, error.code) == (Reason.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded")


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "High risk.", "type": "content_filter"}}),
        (400, {"error": {"message": "Inappropriate.", "code": "data_inspection_failed"}}),
        (400, {"error": {"message": "Unsafe.", "code": "1301"}}),
        (403, {"error": {"message": "Flagged.", "code": 403, "metadata": {"reasons": ["x"], "flagged_input": "y"}}}),
        (403, {"error": {"message": "Flagged.", "metadata": {"error_type": "content_policy_violation"}}}),
        (403, {"code": "The caller may not.", "error": "Content violates usage guidelines. Failed check: X"}),
    ],
)
def test_content_that_is_not_liked(status: int, body: JSON) -> None:
    """Not to be taken for a refusal of our credential."""
    error = refused(status, body)
    assert error.reason is Reason.CONTENT_REJECTED
    assert "credential" not in error.message


@pytest.mark.parametrize(
    "body",
    [
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xx***yy."},
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "X"}}],
    ],
)
def test_a_credential_refused_with_a_400(body: JSON | list[JSON]) -> None:
    error = refused(400, body)
    assert error.reason is Reason.UPSTREAM_CREDENTIAL
    assert "API key" not in error.message


def test_a_sentence_is_no_code() -> None:
    error = refused(400, {"code": "Client specified an invalid argument", "error": "No."})
    assert (error.reason, error.message, error.code) == (Reason.INVALID_REQUEST, "No.", None)


def test_what_the_vendor_behind_it_said() -> None:
    raw = '{"error":{"message":"tools: no"}}'
    error = refused(400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}})
    assert error.message == f"Provider returned error: {raw}"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"success": False, "errors": [{"code": 7003, "message": "No route."}]}, "No route."),
        ({"error_code": 336003, "error_msg": "No."}, "No."),
        ({"base_resp": {"status_code": 2013, "status_msg": "No."}}, "No."),
        ({"object": "error", "message": {"detail": [{"msg": "bad"}]}}, '{"detail":[{"msg":"bad"}]}'),
        ({"error": ["bad"]}, 'The upstream answered with status 400: {"error": ["bad"]}'),
    ],
)
def test_other_forms(body: JSON, message: str) -> None:
    error = refused(400, body)
    assert (error.reason, error.message) == (Reason.INVALID_REQUEST, message)


GROQ = {"message": "No call.", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "maybe"}
AZURE = {
    "message": "Filtered.",
    "type": None,
    "param": "prompt",
    "code": "content_filter",
    "status": 400,
    "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
}


@pytest.mark.parametrize(
    ("body", "extra"),
    [
        ({"error": GROQ}, {"failed_generation": "maybe"}),
        ({"error": AZURE}, {"status": 400, "innererror": AZURE["innererror"]}),
        ([{"error": {"code": 400, "message": "No.", "status": "X", "details": []}}], {"status": "X", "details": []}),
        ({"error": {"message": "No.", "metadata": None, "code": None}}, {}),
        ({"error": "No.", "more": 1}, {}),
        ({"message": "No.", "object": "error", "more": 1}, {}),
        ({"errors": [{"code": 7003, "message": "No.", "more": 1}]}, {}),
    ],
)
def test_what_an_error_says_beside_it_is_kept(body: JSON | list[JSON], extra: JSON) -> None:
    """Groq: https://console.groq.com/docs/tool-use, Azure: its content filter's errors."""
    assert refused(400, body).extra == extra


@pytest.mark.parametrize("status", [401, 402, 403])
def test_nothing_is_kept_of_a_refusal_of_our_credential(status: int) -> None:
    assert refused(status, {"error": {"message": "No.", "key": "sk-our-own"}}).extra == {}


class TestWait:
    GOOGLE = [{"error": {"code": 429, "message": "Slow down.", "details": [{"@type": "x"}, {"retryDelay": "34.5s"}]}}]

    def test_told_in_the_body(self) -> None:
        assert refused(429, self.GOOGLE).retry_after == 34.5

    def test_the_header_counts_before_it(self) -> None:
        assert refused(429, self.GOOGLE, retry_after="2").retry_after == 2

    @pytest.mark.parametrize("odd", [None, 34, "soon", "-1s", "99999999s"])
    def test_of_no_use(self, odd: object) -> None:
        assert refused(429, {"error": {"message": "No.", "details": [{"retryDelay": odd}, 1]}}).retry_after is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"message": "No.", "code": 1, "metadata": {"error_type": "provider_unavailable"}}, Reason.UPSTREAM_OVERLOADED),
        ({"message": "No.", "type": "engine_overloaded_error"}, Reason.UPSTREAM_OVERLOADED),
        ({"message": "No.", "type": "rate_limit_error"}, Reason.UPSTREAM_RATE_LIMITED),
        ({"message": "No.", "status_code": 429}, Reason.UPSTREAM_RATE_LIMITED),
        ({"message": "No.", "type": "x", "http_code": "503"}, Reason.UPSTREAM_OVERLOADED),
        ({"message": "No.", "code": "1234"}, Reason.UPSTREAM_FAILED),
        ({"message": "The maximum context length is 8.", "code": 400}, Reason.CONTEXT_LENGTH_EXCEEDED),
    ],
)
def test_inside_an_answer(error: JSON, reason: Reason) -> None:
    decoder = FAMILY.chat_decoder(REQUEST, UPSTREAM)
    with pytest.raises(CallError) as caught:
        decoder.feed(("", json.dumps({"error": error}).encode()), chat_pb2.ChatResponse().chunks)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"error": {"message": "No.", "code": "quota"}, "status_code": 429}, Reason.UPSTREAM_RATE_LIMITED),
        ({"error": "`inputs` must not be empty", "error_type": "validation"}, Reason.INVALID_REQUEST),
        ({"object": "error", "message": "No.", "type": "X", "param": None, "code": None}, Reason.UPSTREAM_FAILED),
    ],
    ids=["Cerebras", "TGI", "vLLM and Mistral"],
)
def test_an_event_that_is_an_error(event: JSON, reason: Reason) -> None:
    decoder = FAMILY.chat_decoder(REQUEST, UPSTREAM)
    chunks = chat_pb2.ChatResponse().chunks
    decoder.feed(("", b'{"choices": [{"index": 0, "delta": {"content": "Hel"}}]}'), chunks)
    with pytest.raises(CallError) as caught:
        decoder.feed(("", json.dumps(event).encode()), chunks)
    assert caught.value.reason is reason


def test_capacity_by_groqs_own_status() -> None:
    body = {"error": {"message": "Flex tier capacity exceeded.", "type": "x", "code": "capacity_exceeded"}}
    assert refused(498, body).reason is Reason.UPSTREAM_OVERLOADED
    assert refused(498, {"message": "invalid token"}).reason is Reason.UPSTREAM_REJECTED


def test_an_overload_in_a_word_beside_the_error() -> None:
    """As text-generation-inference says it."""
    decoder = FAMILY.chat_decoder(REQUEST, UPSTREAM)
    with pytest.raises(CallError) as caught:
        decoder.feed(("", b'{"error":"Busy.","error_type":"overloaded"}'), chat_pb2.ChatResponse().chunks)
    assert (caught.value.reason, caught.value.message) == (Reason.UPSTREAM_OVERLOADED, "Busy.")

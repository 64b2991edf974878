"""Errors on their way through a gRPC status: everything they carry arrives, never more than metadata can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from trestle.errors import (
    ANOTHER_MAY_HELP,
    DOMAIN,
    MAX_EXTRA_BYTES,
    MAX_MESSAGE_CHARS,
    MAX_STATUS_BYTES,
    MAX_TEXT_BYTES,
    STATUS,
    CallError,
    Reason,
)
from trestle.v1 import chat_pb2, error_pb2


def through(error: CallError) -> CallError:
    """The same error as the other side reads it."""
    return CallError.from_status(error.status, error.text, error.to_status())


@pytest.mark.parametrize("reason", [each for each in Reason if each is not Reason.UNSPECIFIED])
def test_every_reason_arrives_with_its_status(reason: Reason) -> None:
    there = through(CallError(reason, "It failed."))
    assert (there.reason, there.status, there.message) == (reason, STATUS[reason], "It failed.")
    assert (str(CallError(reason, "It failed.")), there.attempts) == ("It failed.", 1)


def test_the_reasons_are_those_of_the_contract() -> None:
    prefix = "ERROR_REASON_"
    names = error_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values_by_name
    assert {each.value for each in Reason} == {name.removeprefix(prefix) for name in names}
    assert set(STATUS) == set(Reason)


def test_all_that_is_known_arrives() -> None:
    usage = chat_pb2.Usage(input_tokens=5, output_tokens=2, reasoning_tokens=1)
    there = through(
        CallError(
            Reason.CONTEXT_LENGTH_EXCEEDED,
            "Too long.",
            param="messages[0].content",
            code="context_length_exceeded",
            type="invalid_request_error",
            retry_after=1.5,
            upstream="openai",
            upstream_status=400,
            upstream_request_id="req_1",
            attempts=2,
            extra={"failed_generation": "maybe", "innererror": {"list": [1, 2.5, None, True, "漢"]}},
            usage=usage,
        )
    )
    assert there.extra == {"failed_generation": "maybe", "innererror": {"list": [1, 2.5, None, True, "漢"]}}
    assert there.param == "messages[0].content"
    assert there.code == "context_length_exceeded"
    assert there.type == "invalid_request_error"
    assert (there.retry_after, there.attempts) == (1.5, 2)
    assert (there.upstream, there.upstream_status, there.upstream_request_id) == ("openai", 400, "req_1")
    assert there.usage == usage


def test_members_of_usage_that_nobody_named_stay_behind() -> None:
    long = b"x" * 3000
    usage = chat_pb2.Usage(
        input_tokens=5, extra_json=long, input_details_extra_json=long, output_details_extra_json=long
    )
    there = through(CallError(Reason.UPSTREAM_TRUNCATED, "It broke off.", usage=usage))
    assert (there.message, there.usage) == ("It broke off.", chat_pb2.Usage(input_tokens=5))


def test_what_is_not_known_is_absent() -> None:
    there = through(CallError(Reason.INTERNAL, "It failed."))
    assert (there.param, there.code, there.type, there.retry_after, there.usage) == (None,) * 5
    assert (there.upstream, there.upstream_status, there.upstream_request_id) == (None,) * 3
    assert there.extra == {}


def test_the_details_are_the_standard_ones() -> None:
    error = CallError(Reason.INVALID_REQUEST, "No.", param="n", code="invalid_value", retry_after=2)
    status = status_pb2.Status.FromString(error.to_status())
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    for detail, kind in zip(status.details, (info, bad, retry), strict=True):
        assert detail.Unpack(kind)
    assert (status.code, status.message) == (code_pb2.INVALID_ARGUMENT, "No.")
    assert (info.reason, info.domain, info.metadata["code"]) == ("INVALID_REQUEST", DOMAIN, "invalid_value")
    assert [(each.field, each.description) for each in bad.field_violations] == [("n", "No.")]
    assert retry.retry_delay.seconds == 2


@given(message=st.text(max_size=5000), param=st.text(max_size=2000), upstream=st.text(max_size=500))
def test_whatever_it_says_it_fits(message: str, param: str, upstream: str) -> None:
    error = CallError(Reason.INVALID_REQUEST, message, param=param, code=param, type=upstream, upstream=upstream)
    assert len(error.message) <= MAX_MESSAGE_CHARS
    assert len(error.to_status()) <= MAX_STATUS_BYTES
    assert through(error).reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize("letter", ["a", "é", "漢", "🎉", "\n", "%"])
def test_a_long_text_is_cut_and_still_readable(letter: str) -> None:
    names: dict[str, Any] = dict.fromkeys(("upstream", "code", "type", "param", "upstream_request_id"), letter * 300)
    extra = {"failed_generation": letter * 5000}
    usage = chat_pb2.Usage(input_tokens=2**31, output_tokens=2**31, reasoning_tokens=2**31)
    error = CallError(Reason.INVALID_REQUEST, letter * 5000, **names, extra=extra, retry_after=1.5, usage=usage)
    assert len(error.text.encode()) <= MAX_TEXT_BYTES
    assert len(error.to_status()) <= MAX_STATUS_BYTES
    there = through(error)
    assert there.message.startswith(letter * 200)
    assert (there.code or "").startswith(letter * 50)
    assert there.extra["failed_generation"].startswith(letter * 50)
    assert (there.retry_after, there.usage) == (1.5, usage)


class TestExtra:
    """Members of the upstream's own error object, of which no more travels than metadata can hold."""

    @pytest.mark.parametrize("letter", ["a", "é", "漢", "🎉", "\n", '"', "\x00"])
    def test_a_long_text_is_cut(self, letter: str) -> None:
        error = CallError(Reason.INVALID_REQUEST, letter * 5000, extra={"first": letter * 5000, "then": 1})
        assert len(error.to_status()) <= MAX_STATUS_BYTES
        there = through(error)
        assert there.extra["first"].rstrip("…") == letter * (len(there.extra["first"]) - 1)
        assert there.extra["first"].endswith("…")
        assert len(there.message) > 100

    def test_what_cannot_be_cut_is_left_out_and_the_rest_is_not(self) -> None:
        nested: list[object] = []
        for _ in range(100_000):
            nested = [nested]
        extra = {"list": list(range(2000)), "nested": nested, "n" * 2000: "text", "kept": [1], "text": "short"}
        assert through(CallError(Reason.INVALID_REQUEST, "No.", extra=extra)).extra == {"kept": [1], "text": "short"}

    @given(st.dictionaries(st.text(max_size=300), st.text(max_size=3000) | st.lists(st.integers(), max_size=500)))
    def test_whatever_there_is(self, extra: dict[str, Any]) -> None:
        error = CallError(Reason.INVALID_REQUEST, "No.", extra=extra)
        assert len(error.to_status()) <= MAX_STATUS_BYTES
        there = through(error)
        assert there.message == "No."
        for name, value in there.extra.items():
            assert value == extra[name] or (value.endswith("…") and extra[name][:20].startswith(value[:-1][:20]))
        if sum(len(json.dumps({name: value})) for name, value in extra.items()) < MAX_EXTRA_BYTES // 2:
            assert there.extra == extra

    @pytest.mark.parametrize("odd", ["", "[1]", "nope", "[" * 100_000, '{"a": "\\ud83d"}', '"text"', "null"])
    def test_what_is_no_object_is_nothing(self, odd: str) -> None:
        status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message="No.")
        info = error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain=DOMAIN, metadata={"extra_json": odd})
        status.details.add().Pack(info)
        there = CallError.from_status(code_pb2.INVALID_ARGUMENT, "", status.SerializeToString())
        assert (there.extra, there.reason) == ({}, Reason.INVALID_REQUEST)


def test_an_id_that_is_no_text_arrives_without_what_is_none() -> None:
    """As a header's bytes are read that are not UTF-8."""
    there = through(CallError(Reason.UPSTREAM_FAILED, "No.", upstream_request_id="a\udcffb"))
    assert (there.reason, there.upstream_request_id) == (Reason.UPSTREAM_FAILED, "a?b")


@pytest.mark.parametrize("details", [None, b"", b"\xff\xff not a status"])
def test_a_status_without_our_details_has_no_reason(details: bytes | None) -> None:
    there = CallError.from_status(code_pb2.UNAVAILABLE, "connection refused", details)
    assert (there.reason, there.status) == (Reason.UNSPECIFIED, code_pb2.UNAVAILABLE)


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (CallError.from_status(code_pb2.UNAVAILABLE, "", None), "UNAVAILABLE"),
        (CallError.from_status(code_pb2.DEADLINE_EXCEEDED, "", None), "DEADLINE_EXCEEDED"),
        (CallError.from_status(99, "", None), "UNKNOWN"),
        (CallError(Reason.UPSTREAM_TIMEOUT, ""), "UPSTREAM_TIMEOUT"),
    ],
)
def test_a_failure_of_grpcs_own_goes_by_its_status(error: CallError, label: str) -> None:
    assert error.label == label


def test_details_of_another_domain_are_not_ours() -> None:
    status = status_pb2.Status(code=code_pb2.NOT_FOUND, message="elsewhere")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="MODEL_NOT_FOUND", domain="googleapis.com"))
    status.details.append(any_pb2.Any(type_url="type.googleapis.com/unknown.Thing", value=b"\x01"))
    there = CallError.from_status(code_pb2.NOT_FOUND, "text", status.SerializeToString())
    assert (there.reason, there.message) == (Reason.UNSPECIFIED, "text")


def test_a_reason_newer_than_we_are_is_read_by_its_status() -> None:
    status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="New.")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="FROM_THE_FUTURE", domain=DOMAIN))
    there = CallError.from_status(code_pb2.RESOURCE_EXHAUSTED, "", status.SerializeToString())
    assert (there.reason, there.message) == (Reason.UPSTREAM_RATE_LIMITED, "New.")


def test_whether_another_target_may_help() -> None:
    for reason in Reason:
        if reason is not Reason.UNSPECIFIED:
            assert CallError(reason, "").another_may_help is (reason in ANOTHER_MAY_HELP), reason
    unreachable = CallError.from_status(code_pb2.UNAVAILABLE, "", None)
    late = CallError.from_status(code_pb2.DEADLINE_EXCEEDED, "", None)
    assert unreachable.another_may_help
    assert not late.another_may_help

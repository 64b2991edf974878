"""Errors of Google's APIs (`google.rpc.Status` as JSON), as answers of their own and inside a 200. Pure."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from trestle.errors import CallError, Reason
from worker.http_errors import detail_of, extra_of, reason_of, request_id, retry_after

_STATUSES: Final[Mapping[str, Reason]] = {
    "INVALID_ARGUMENT": Reason.INVALID_REQUEST,
    "FAILED_PRECONDITION": Reason.INVALID_REQUEST,
    "OUT_OF_RANGE": Reason.INVALID_REQUEST,
    "UNAUTHENTICATED": Reason.UPSTREAM_CREDENTIAL,
    "PERMISSION_DENIED": Reason.UPSTREAM_CREDENTIAL,
    "NOT_FOUND": Reason.MODEL_NOT_FOUND,
    "RESOURCE_EXHAUSTED": Reason.UPSTREAM_RATE_LIMITED,
    "UNAVAILABLE": Reason.UPSTREAM_OVERLOADED,
    "DEADLINE_EXCEEDED": Reason.UPSTREAM_TIMEOUT,
}
# Reasons of an ErrorInfo that speak of our credential or our account, whatever the status.
_CREDENTIAL: Final = ("API_KEY_", "ACCESS_TOKEN_", "CREDENTIALS_", "SERVICE_DISABLED", "IAM_PERMISSION_DENIED")
_ACCOUNT: Final = ("BILLING_DISABLED", "CONSUMER_SUSPENDED")
_TOLD_IN_WORDS: Final[tuple[tuple[str, Reason], ...]] = (
    ("exceeds the maximum number of tokens", Reason.CONTEXT_LENGTH_EXCEEDED),
    ("input token count", Reason.CONTEXT_LENGTH_EXCEEDED),
    ("payload size exceeds", Reason.REQUEST_TOO_LARGE),
    ("api key not valid", Reason.UPSTREAM_CREDENTIAL),
    ("api key expired", Reason.UPSTREAM_CREDENTIAL),
    ("enable billing", Reason.UPSTREAM_QUOTA),
    ("user location is not supported", Reason.UPSTREAM_FAILED),  # where we run, not what was asked
)
# Said with a 429, and nothing beside it, of an account that is good for no more.
_SPENT: Final = ("prepayment credits are depleted", "exceeded its monthly spending cap")
# Of the request's making, though refused as a matter of rights: a file or a cache that is another account's.
_THEIRS: Final = ("access the file", "cachedcontent", "cached content")
_PROJECT: Final = re.compile(r"projects/[^/\s`'\"]+/locations/[^/\s`'\"]+/")
_PROJECT_NAME: Final = re.compile(r"projects/[^/\s`'\"\\]+")
_RETRY: Final = re.compile(r"retry in (\d+(?:\.\d+)?)s")
_PARAMS: Final[tuple[tuple[str, str], ...]] = (
    ("generation_config.response", "response_format"),
    ("generation_config.thinking", "reasoning_effort"),
    ("generation_config.max_output_tokens", "max_tokens"),
    ("generation_config.stop_sequences", "stop"),
    ("generation_config.temperature", "temperature"),
    ("generation_config.top_p", "top_p"),
    ("generation_config.top_k", "top_k"),
    ("generation_config.seed", "seed"),
    ("generation_config.presence_penalty", "presence_penalty"),
    ("generation_config.frequency_penalty", "frequency_penalty"),
    ("generation_config.logprobs", "top_logprobs"),
    ("tool_config", "tool_choice"),
    ("tools", "tools"),
    ("contents", "messages"),
    ("system_instruction", "messages"),
)


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    upstream: str,
    now: Callable[[], float] = time.time,
) -> CallError:
    """The meaning of an answer with a status of 300 and up. headers: names in lower case."""
    error = error_from(body, status, upstream)
    if error.retry_after is None:
        error.retry_after = retry_after(headers, now)
    error.upstream_request_id = request_id(headers)
    return error


def error_from(body: bytes, status: int | None, upstream: str) -> CallError:
    """The error in a body or event. status: None inside an answer of status 200, where the error's own code says it."""
    found = _status_in(body)
    word, code = _text(found.get("status")), found.get("code")
    message = _PROJECT.sub("", _text(found.get("message")))
    details = _objects(found.get("details"))
    told = status if status is not None else code
    told = told if isinstance(told, int) and told >= 300 else None  # inside a stream it may be gRPC's own number
    reason = _STATUSES.get(word, Reason.UPSTREAM_FAILED) if told is None else reason_of(told)
    reason = _refined(reason, message, details)
    error = CallError(
        reason, message, type=word or None, upstream=upstream, upstream_status=status, retry_after=_delay(details)
    )
    if not message:
        said = detail_of(body)
        where = f"status {status}" if status is not None else "an error"
        error.message = f"The upstream answered with {where}" + (f": {said}" if said else ".")
    _explain(error, details)
    error.extra = extra_of(error.reason, _without_project(found), ("status", "code", "message"))
    return error


def says_error(body: bytes) -> bool:
    """Whether a body is an error in the form of Google's."""
    return bool(_status_in(body))


def _without_project(said: dict[str, Any]) -> dict[str, Any]:
    """The same with the name of our own project out of every text."""
    try:
        found: dict[str, Any] = msgspec.json.decode(_PROJECT_NAME.sub("projects/-", msgspec.json.encode(said).decode()))
    except RecursionError:
        return {}
    return found


def _refined(reason: Reason, message: str, details: list[dict[str, Any]]) -> Reason:
    """The reason with what the details and the words say beyond the status."""
    words = message.lower()
    for each in details:
        why = _text(each.get("reason"))
        if why.startswith(_CREDENTIAL):
            return Reason.UPSTREAM_CREDENTIAL
        if why in _ACCOUNT:
            return Reason.UPSTREAM_QUOTA
    if reason in (Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE, Reason.UPSTREAM_CREDENTIAL):
        for phrase, told in _TOLD_IN_WORDS:
            if phrase in words:
                return told
    if reason is Reason.UPSTREAM_CREDENTIAL and any(phrase in words for phrase in _THEIRS):
        return Reason.INVALID_REQUEST
    return reason


def _explain(error: CallError, details: list[dict[str, Any]]) -> None:
    """Code and param in OpenAI's words; and words of ours where the upstream's are about our credential (WIRE 5)."""
    reason = error.reason
    if reason is Reason.CONTEXT_LENGTH_EXCEEDED:
        error.code, error.param = "context_length_exceeded", "messages"
    elif reason is Reason.MODEL_NOT_FOUND:
        error.code, error.param = "model_not_found", "model"
    elif reason is Reason.INVALID_REQUEST:
        error.param = _param(details)
    elif reason is Reason.UPSTREAM_CREDENTIAL:
        error.message = "The upstream refused the bridge's credential for it."
    elif reason is Reason.UPSTREAM_QUOTA:
        error.message = "The bridge's account with the upstream is not good for it."
    elif reason is Reason.UPSTREAM_RATE_LIMITED:
        words = error.message.lower()
        if _used_up(details) or any(phrase in words for phrase in _SPENT):
            error.code = "insufficient_quota"
        told = _RETRY.search(error.message)
        if error.retry_after is None and told is not None:
            error.retry_after = float(told[1])


def _status_in(body: bytes) -> dict[str, Any]:
    """The `error` of `{"error": {...}}` or of the first of a list of such; empty where there is none."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list):
        found = found[0] if found else None
    inner = found.get("error") if isinstance(found, dict) else None
    if isinstance(inner, str):
        return {"message": inner}
    return inner if isinstance(inner, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _delay(details: list[dict[str, Any]]) -> float | None:
    """Seconds, from a RetryInfo: "48s", "1.5s"."""
    for each in details:
        delay = _text(each.get("retryDelay"))
        if delay.endswith("s"):
            try:
                seconds = float(delay[:-1])
            except ValueError:
                continue
            return max(0.0, seconds) if seconds < 366 * 86400 else None
    return None


def _used_up(details: list[dict[str, Any]]) -> bool:
    """Whether the quota is one of a day, or of nothing at all: waiting a little does not help."""
    for each in details:
        for violation in _objects(each.get("violations")):
            if "PerDay" in _text(violation.get("quotaId")) or violation.get("quotaValue") == "0":
                return True
    return False


def _param(details: list[dict[str, Any]]) -> str | None:
    """The client's name for the first field at fault."""
    for each in details:
        for violation in _objects(each.get("fieldViolations")):
            field = _text(violation.get("field"))
            for prefix, param in _PARAMS:
                if field.startswith(prefix):
                    return param
    return None

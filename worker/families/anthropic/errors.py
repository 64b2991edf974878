"""Errors of the Messages API, as answers of their own and as events inside a 200. Pure."""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from google.rpc import code_pb2

from trestle.errors import CallError, Reason
from worker.http_errors import detail_of, extra_of, reason_of, request_id, retry_after

_TYPES: Final[Mapping[str, Reason]] = {
    "invalid_request_error": Reason.INVALID_REQUEST,
    "authentication_error": Reason.UPSTREAM_CREDENTIAL,
    "permission_error": Reason.UPSTREAM_CREDENTIAL,
    "billing_error": Reason.UPSTREAM_QUOTA,
    "not_found_error": Reason.MODEL_NOT_FOUND,
    "request_too_large": Reason.REQUEST_TOO_LARGE,
    "rate_limit_error": Reason.UPSTREAM_RATE_LIMITED,
    "timeout_error": Reason.UPSTREAM_TIMEOUT,
    "api_error": Reason.UPSTREAM_FAILED,
    "overloaded_error": Reason.UPSTREAM_OVERLOADED,
}
# What an invalid_request_error says of itself in words only.
_CONTEXT: Final = ("prompt is too long", "exceed context limit", "context window", "maximum context length")
_FILTERED: Final = ("content filtering policy",)
_NO_CREDIT: Final = ("credit balance is too low", "reached your specified api usage limits")
_NO_ACCOUNT: Final = ("organization has been disabled",)
# "messages.1.content.0.type: Expected ...", "max_tokens: ...": the upstream's field, in its own words.
_FIELD: Final = re.compile(r"^([a-z_]+)(?:\.[\w-]+)*: ")
_PARAMS: Final[Mapping[str, str]] = {
    "max_tokens": "max_tokens",
    "messages": "messages",
    "metadata": "user",
    "model": "model",
    "output_config": "response_format",
    "output_format": "response_format",
    "stop_sequences": "stop",
    "system": "messages",
    "temperature": "temperature",
    "thinking": "reasoning_effort",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "top_k",
    "top_p": "top_p",
}
_LIMITS: Final = ("requests", "tokens", "input-tokens", "output-tokens")


def decode_error(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    upstream: str,
    now: Callable[[], float] = time.time,
) -> CallError:
    """The meaning of an answer with a status of 300 and up. headers: names in lower case."""
    error = error_from(body, status, upstream)
    error.retry_after = retry_after(headers, now)
    if error.retry_after is None and error.reason is Reason.UPSTREAM_RATE_LIMITED:
        error.retry_after = _until_reset(headers, now)
    error.upstream_request_id = request_id(headers) or error.upstream_request_id
    return error


def error_from(body: bytes, status: int | None, upstream: str) -> CallError:
    """The error in a body or event. status: None inside an answer of status 200, where the error's type says all."""
    kind, message, request, members = _fields(body)
    if status is None:
        reason = _TYPES.get(kind or "", Reason.UPSTREAM_FAILED)
    else:
        # An overload is one under whatever status a proxy passes it on; else the status is what counts.
        reason = Reason.UPSTREAM_OVERLOADED if kind == "overloaded_error" else reason_of(status)
    code = param = grpc = None
    if message is None:
        said = detail_of(body)
        where = f"status {status}" if status is not None else "an error"
        message = f"The upstream answered with {where}" + (f": {said}" if said else ".")
    elif reason in (Reason.INVALID_REQUEST, Reason.REQUEST_TOO_LARGE):
        reason, code, param = _told_in_words(reason, message)
    elif reason is Reason.MODEL_NOT_FOUND and kind == "not_found_error" and "model" not in message.lower():
        # A file, a container or the like that the request names.
        reason, code, grpc = Reason.INVALID_REQUEST, "not_found", code_pb2.NOT_FOUND
    elif reason is Reason.MODEL_NOT_FOUND:
        code, param = "model_not_found", "model"
    if reason is Reason.UPSTREAM_CREDENTIAL:
        # About our credential, not the caller's key (WIRE 5): its words may quote the credential.
        message = "The upstream refused the bridge's credential for it."
    elif reason is Reason.UPSTREAM_QUOTA:
        message = "The bridge's account with the upstream has no credit left."
    return CallError(
        reason,
        message,
        param=param,
        code=code,
        type=kind,
        status=grpc,
        upstream=upstream,
        upstream_status=status,
        upstream_request_id=request,
        extra=extra_of(reason, members, ("type", "message")),
    )


def says_error(body: bytes) -> bool:
    """Whether a body that came where an event was due is an error: `{"error": ...}`, of whatever type."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(found, dict) and bool(found.get("error"))


def _told_in_words(reason: Reason, message: str) -> tuple[Reason, str | None, str | None]:
    """Reason, code and param of a request that was refused."""
    words = message.lower()
    if any(phrase in words for phrase in _CONTEXT):
        return Reason.CONTEXT_LENGTH_EXCEEDED, "context_length_exceeded", "messages"
    if any(phrase in words for phrase in _FILTERED):
        return Reason.CONTENT_REJECTED, "content_filter", None
    if any(phrase in words for phrase in _NO_CREDIT):
        return Reason.UPSTREAM_QUOTA, None, None
    if any(phrase in words for phrase in _NO_ACCOUNT):
        return Reason.UPSTREAM_CREDENTIAL, None, None
    field = _FIELD.match(message)
    return reason, None, _PARAMS.get(field.group(1)) if field else None


def _fields(body: bytes) -> tuple[str | None, str | None, str | None, dict[str, Any] | None]:
    """Type, message and request id of an error's body, `{"error": {"type", "message"}, "request_id"}`, and the object
    in `error`."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None, None, None
    if not isinstance(found, dict):
        return None, None, None, None
    inner = found.get("error")
    if isinstance(inner, str):
        return None, inner or None, _text(found.get("request_id")), None
    members = inner if isinstance(inner, dict) else None
    inner = found if members is None else members
    message = _text(inner.get("message")) or _text(inner.get("msg"))
    return _text(inner.get("type")), message, _text(found.get("request_id")), members


def _text(value: object) -> str | None:
    return value or None if isinstance(value, str) else None


def _until_reset(headers: Mapping[str, str], now: Callable[[], float]) -> float | None:
    """Seconds until the last of the limits that are used up is renewed; None where the headers do not say."""
    waits = []
    for limit in _LIMITS:
        if headers.get(f"anthropic-ratelimit-{limit}-remaining") != "0":
            continue
        try:
            reset = dt.datetime.fromisoformat(headers.get(f"anthropic-ratelimit-{limit}-reset", ""))
        except ValueError:
            continue
        if reset.tzinfo is not None:
            waits.append(max(0.0, reset.timestamp() - now()))
    return max(waits, default=None)

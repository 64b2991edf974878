"""Failures as OpenAI says them: HTTP status, error object, retry headers. Pure; the table is WIRE's "Errors"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import msgspec
from google.rpc import code_pb2

from gateway import coding
from trestle.errors import CallError, Reason

_TYPES: Final[Mapping[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout",
    409: "conflict",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_exceeded",
    431: "invalid_request_error",
    499: "client_closed_request",
    500: "internal_server_error",
    501: "not_implemented",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "timeout",
}
_C = code_pb2
_STATUS: Final[Mapping[int, int]] = {
    _C.INVALID_ARGUMENT: 400,
    _C.OUT_OF_RANGE: 400,
    _C.FAILED_PRECONDITION: 400,
    _C.UNAUTHENTICATED: 401,
    _C.PERMISSION_DENIED: 403,
    _C.NOT_FOUND: 404,
    _C.ALREADY_EXISTS: 409,
    _C.ABORTED: 409,
    _C.RESOURCE_EXHAUSTED: 429,
    _C.DEADLINE_EXCEEDED: 504,
    _C.UNAVAILABLE: 503,
    _C.INTERNAL: 500,
    _C.UNIMPLEMENTED: 501,
    _C.CANCELLED: 499,
}
STATUSES: Final = frozenset(_STATUS.values()) - {499} | {408, 413, 415, 502}
"""Every HTTP status that a call may fail with; 499 is for logs only."""
UNFINISHED: Final = "request_timeout"
"""The code of a request whose body did not come in time."""
_OF_BODIES: Final[Mapping[str | None, int]] = {UNFINISHED: 408, coding.UNKNOWN: 415}
_UPSTREAMS_FAULT: Final = frozenset(
    {
        Reason.UPSTREAM_PROTOCOL,
        Reason.UPSTREAM_FAILED,
        Reason.UPSTREAM_CREDENTIAL,
        Reason.UPSTREAM_QUOTA,
    }
)
# gRPC's own statuses, which carry no ErrorInfo: what they mean, and words of ours, for theirs are not for callers.
_FOREIGN: Final[Mapping[int, tuple[int, str]]] = {
    _C.DEADLINE_EXCEEDED: (504, "The request took longer than it may."),
    _C.UNAVAILABLE: (503, "The worker for this model cannot be reached."),
    _C.CANCELLED: (503, "The worker broke off."),
}
_FOREIGN_OTHER: Final = (502, "The worker for this model failed.")
_CODES: Final[Mapping[Reason, str]] = {
    Reason.CONTEXT_LENGTH_EXCEEDED: "context_length_exceeded",
    Reason.DEADLINE_EXCEEDED: "deadline_exceeded",
    Reason.UPSTREAM_TIMEOUT: "upstream_timeout",
    Reason.UPSTREAM_TRUNCATED: "upstream_truncated",
    Reason.UPSTREAM_UNREACHABLE: "upstream_unreachable",
    Reason.UPSTREAM_OVERLOADED: "upstream_overloaded",
    Reason.UPSTREAM_PROTOCOL: "upstream_protocol",
    Reason.UPSTREAM_FAILED: "upstream_failed",
    Reason.UPSTREAM_CREDENTIAL: "upstream_credential",
    Reason.UPSTREAM_QUOTA: "upstream_quota",
    Reason.CONTENT_REJECTED: "content_filter",
    Reason.OVERLOADED: "overloaded",
    Reason.UNSUPPORTED: "unsupported_parameter",
}


class ErrorAnswer(msgspec.Struct, frozen=True):
    """One error, ready to send. status: HTTP. body: the error object's JSON. headers: beside the usual ones."""

    status: int
    body: bytes
    headers: dict[str, str]


def http_status(error: CallError) -> int:
    """The HTTP status that a failure answers with before the first byte."""
    if error.reason is Reason.UNSPECIFIED:
        return _FOREIGN.get(error.status, _FOREIGN_OTHER)[0]
    if error.reason is Reason.REQUEST_TOO_LARGE:
        return 413
    if error.code in _OF_BODIES:
        return _OF_BODIES[error.code]
    status = _STATUS.get(error.status, 502)
    return 502 if status == 500 and error.reason in _UPSTREAMS_FAULT else status


def error_answer(error: CallError, *, final: bool = False) -> ErrorAnswer:
    """The answer to a failed request. final: our own retries are spent, so the SDK's would only multiply them."""
    status = http_status(error)
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after))
        headers["retry-after-ms"] = str(math.ceil(error.retry_after * 1000))
    if status == 415:
        headers["accept-encoding"] = ", ".join(coding.CODINGS)
    quota = error.reason is Reason.RATE_LIMITED and error.code == "insufficient_quota"
    if status == 501 or final or quota:  # a day's or a month's, which no SDK waits for
        headers["x-should-retry"] = "false"
    return ErrorAnswer(status, error_body(error), headers)


def error_body(error: CallError) -> bytes:
    """The error object: all four members, always (WIRE 1), and what the upstream's said beside them."""
    status = http_status(error)
    kind = _TYPES.get(status, "api_error")
    message, code, param = error.message, error.code, error.param
    if error.reason is Reason.UNSPECIFIED:
        message = _FOREIGN.get(error.status, _FOREIGN_OTHER)[1]
        code = "deadline_exceeded" if status == 504 else "worker_unavailable" if status == 503 else "worker_failed"
    elif code is None:
        code = _CODES.get(error.reason)
    if code == "model_not_found":
        # OpenAI's own answer for a model it does not know has this type beside the 404 (WIRE 2).
        kind, param = "invalid_request_error", param or "model"
    elif code == "insufficient_quota":
        kind = "insufficient_quota"
    ours = {"message": message, "type": kind, "param": param, "code": code}
    theirs = {name: value for name, value in error.extra.items() if name not in ours}
    return msgspec.json.encode({"error": ours | theirs})


def refusal(status: int, message: str, code: str, headers: Mapping[str, str] | None = None) -> ErrorAnswer:
    """The answer to what never became a call: a path, a method that does not exist here."""
    error = {"message": message, "type": _TYPES.get(status, "api_error"), "param": None, "code": code}
    return ErrorAnswer(status, msgspec.json.encode({"error": error}), dict(headers or {}))


def model_not_found(model: str) -> CallError:
    """The public model name resolves to nothing."""
    return CallError(
        Reason.MODEL_NOT_FOUND,
        f"The model '{model}' does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def not_found(what: str, name: str) -> CallError:
    """There is no such thing, or it is another account's: nobody is told which."""
    return CallError(
        Reason.INVALID_REQUEST, f"There is no {what} '{name}'.", code="not_found", status=_C.NOT_FOUND
    )


def conflict(param: str | None, message: str) -> CallError:
    """What is asked for cannot stand beside what is there."""
    return CallError(
        Reason.INVALID_REQUEST, message, param=param, code="conflict", status=_C.ALREADY_EXISTS
    )

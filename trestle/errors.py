"""Why a call failed: reasons, their gRPC status, and the `google.rpc.Status` that carries them.

Both services and every caller share this table; it knows nothing of HTTP (gateway/openai/errors.py does). Pure: status
codes are the numbers of `google.rpc.Code`, which are those of gRPC.
"""

from __future__ import annotations

import enum
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from trestle.v1 import chat_pb2

DOMAIN: Final = "trestle"
# gRPC's own limit on metadata is 8 KB, and binary values take four thirds of their size: this leaves 1 KB for what is
# not ours. The text travels twice: in the details, and as the plain `grpc-message`, where a character may take nine
# bytes.
MAX_STATUS_BYTES: Final = 4608
MAX_EXTRA_BYTES: Final = 1536
MAX_DETAIL_BYTES: Final = 200
MAX_TEXT_BYTES: Final = 900
MAX_MESSAGE_CHARS: Final = 1000
DETAILS_KEY: Final = "grpc-status-details-bin"


class Reason(enum.StrEnum):
    """`trestle.v1.ErrorReason` without its prefix: the text of `ErrorInfo.reason`."""

    UNSPECIFIED = "UNSPECIFIED"
    INVALID_REQUEST = "INVALID_REQUEST"
    UNSUPPORTED = "UNSUPPORTED"
    MODEL_NOT_FOUND = "MODEL_NOT_FOUND"
    CONTEXT_LENGTH_EXCEEDED = "CONTEXT_LENGTH_EXCEEDED"
    CONTENT_REJECTED = "CONTENT_REJECTED"
    REQUEST_TOO_LARGE = "REQUEST_TOO_LARGE"
    UPSTREAM_REJECTED = "UPSTREAM_REJECTED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UPSTREAM_RATE_LIMITED = "UPSTREAM_RATE_LIMITED"
    UPSTREAM_OVERLOADED = "UPSTREAM_OVERLOADED"
    UPSTREAM_UNREACHABLE = "UPSTREAM_UNREACHABLE"
    UPSTREAM_TIMEOUT = "UPSTREAM_TIMEOUT"
    UPSTREAM_PROTOCOL = "UPSTREAM_PROTOCOL"
    UPSTREAM_TRUNCATED = "UPSTREAM_TRUNCATED"
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    UPSTREAM_CREDENTIAL = "UPSTREAM_CREDENTIAL"
    UPSTREAM_QUOTA = "UPSTREAM_QUOTA"
    OVERLOADED = "OVERLOADED"
    INTERNAL = "INTERNAL"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    RATE_LIMITED = "RATE_LIMITED"


_C = code_pb2
_NAMES: Final = frozenset(reason.value for reason in Reason)
_STATUS_NAMES: Final[Mapping[int, str]] = {number: name for name, number in _C.Code.items()}
STATUS: Final[Mapping[Reason, int]] = {
    Reason.UNSPECIFIED: _C.UNKNOWN,
    Reason.INVALID_REQUEST: _C.INVALID_ARGUMENT,
    Reason.UNSUPPORTED: _C.INVALID_ARGUMENT,
    Reason.MODEL_NOT_FOUND: _C.NOT_FOUND,
    Reason.CONTEXT_LENGTH_EXCEEDED: _C.INVALID_ARGUMENT,
    Reason.CONTENT_REJECTED: _C.INVALID_ARGUMENT,
    Reason.REQUEST_TOO_LARGE: _C.OUT_OF_RANGE,
    Reason.UPSTREAM_REJECTED: _C.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: _C.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: _C.PERMISSION_DENIED,
    Reason.UPSTREAM_RATE_LIMITED: _C.RESOURCE_EXHAUSTED,
    Reason.UPSTREAM_OVERLOADED: _C.UNAVAILABLE,
    Reason.UPSTREAM_UNREACHABLE: _C.UNAVAILABLE,
    Reason.UPSTREAM_TIMEOUT: _C.DEADLINE_EXCEEDED,
    Reason.UPSTREAM_PROTOCOL: _C.INTERNAL,
    Reason.UPSTREAM_TRUNCATED: _C.UNAVAILABLE,
    Reason.UPSTREAM_FAILED: _C.INTERNAL,
    Reason.UPSTREAM_CREDENTIAL: _C.INTERNAL,
    Reason.UPSTREAM_QUOTA: _C.INTERNAL,
    Reason.OVERLOADED: _C.UNAVAILABLE,
    Reason.INTERNAL: _C.INTERNAL,
    Reason.DEADLINE_EXCEEDED: _C.DEADLINE_EXCEEDED,
    Reason.UNIMPLEMENTED: _C.UNIMPLEMENTED,
    Reason.RATE_LIMITED: _C.RESOURCE_EXHAUSTED,
}
"""Reason -> number of the gRPC status (error.proto says the same beside each)."""

ANOTHER_MAY_HELP: Final = frozenset(
    {
        Reason.UPSTREAM_RATE_LIMITED,
        Reason.UPSTREAM_OVERLOADED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_PROTOCOL,
        Reason.UPSTREAM_TRUNCATED,
        Reason.UPSTREAM_FAILED,
        Reason.UPSTREAM_CREDENTIAL,
        Reason.UPSTREAM_QUOTA,
        Reason.OVERLOADED,
    }
)
"""Reasons that another target may cure; the rest are the caller's own or would repeat."""



class CallError(Exception):
    """A call that failed, in the contract's terms.

    reason: why; `Reason.UNSPECIFIED` when the status carried no `ErrorInfo` of ours (gRPC made it itself).
    message: for the caller's eyes; never an exception's text of ours. Cut to 1,000 characters.
    param: the field at fault in the client's words, `messages[0].content`; None when there is none.
    code: OpenAI's error code where there is one, such as `context_length_exceeded`.
    type: the error type that the upstream gave, if any.
    retry_after: seconds to wait before another try, when known.
    upstream, upstream_status, upstream_request_id: who failed and what it said.
    extra: members of the upstream's error object beside those above, as JSON has them (Groq's `failed_generation`);
    more than 1.5 KB do not travel: a text is cut, ending in "…", another member left out.
    usage: the tokens known to be used before the failure. attempts: how often the upstream was asked.
    status: the number of the gRPC status.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        type: str | None = None,  # noqa: A002 (the wire's word)
        retry_after: float | None = None,
        upstream: str | None = None,
        upstream_status: int | None = None,
        upstream_request_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        usage: chat_pb2.Usage | None = None,
        attempts: int = 1,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message if len(message) <= MAX_MESSAGE_CHARS else message[: MAX_MESSAGE_CHARS - 1] + "…"
        self.param = param
        self.code = code
        self.type = type
        self.retry_after = retry_after
        self.upstream = upstream
        self.upstream_status = upstream_status
        self.upstream_request_id = upstream_request_id
        self.extra: Mapping[str, Any] = extra or {}
        self.usage = usage
        self.attempts = attempts
        self.status: int = STATUS[reason] if status is None else status

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle: a pool's process hands on what it raises."""
        return _revived, (type(self), vars(self))

    @property
    def another_may_help(self) -> bool:
        """Whether another target may succeed where this one failed."""
        if self.reason is Reason.UNSPECIFIED:
            # Made by gRPC itself: it is this worker that failed. Only the deadline is everybody's.
            return self.status != int(_C.DEADLINE_EXCEEDED)
        return self.reason in ANOTHER_MAY_HELP

    @property
    def label(self) -> str:
        """The reason as logs, metrics, the ledger and spans have it; of a failure that gRPC itself made, its status:
        `UNAVAILABLE` for a worker that cannot be reached, `DEADLINE_EXCEEDED` for one that says nothing."""
        return self.reason.value if self.reason is not Reason.UNSPECIFIED else _STATUS_NAMES.get(self.status, "UNKNOWN")

    @property
    def text(self) -> str:
        """The message as `grpc-message` carries it: the whole of it where that is short, else its beginning."""
        text = self.message
        while len(urllib.parse.quote(text)) > MAX_TEXT_BYTES:
            text = text[: len(text) // 2] + "…"
        return text

    def to_status(self) -> bytes:
        """The serialized `google.rpc.Status` for the trailer `grpc-status-details-bin`, at most 4.5 KB."""
        metadata = {
            name: _cut(str(value))
            for name, value in (
                ("code", self.code),
                ("type", self.type),
                ("param", self.param),
                ("upstream", self.upstream),
                ("upstream_status", self.upstream_status),
                ("upstream_request_id", self.upstream_request_id),
                ("attempts", self.attempts if self.attempts > 1 else None),
            )
            if value is not None
        }
        extra = _fitting(self.extra)
        if extra is not None:
            metadata["extra_json"] = extra
        status = status_pb2.Status(code=self.status, message=self.message)
        details: list[message.Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason.value, domain=DOMAIN, metadata=metadata)
        ]
        if self.param is not None and self.status == _C.INVALID_ARGUMENT:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=_cut(self.param), description=_cut(self.message)
            )
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            details.append(error_details_pb2.RetryInfo(retry_delay=delay))
        if self.usage is not None:
            usage = chat_pb2.Usage()
            usage.CopyFrom(self.usage)
            for field in ("extra_json", "input_details_extra_json", "output_details_extra_json"):
                usage.ClearField(field)
            details.append(usage)
        for detail in details:
            status.details.add().Pack(detail)
        encoded: bytes = status.SerializeToString()
        while len(encoded) > MAX_STATUS_BYTES and status.message:  # four-byte characters, at worst
            status.message = status.message[: len(status.message) // 2]
            encoded = status.SerializeToString()
        return encoded

    @classmethod
    def from_status(cls, status: int, text: str, details: bytes | None) -> CallError:
        """The error that a failed call carries.

        status, text: gRPC's code number and message. details: the trailer `grpc-status-details-bin`, if there was
        one. Details that cannot be read, or are not ours, make `Reason.UNSPECIFIED`.
        """
        error = cls(Reason.UNSPECIFIED, text, status=status)
        if details is None:
            return error
        carried = status_pb2.Status()
        try:
            carried.ParseFromString(details)
        except message.DecodeError:
            return error
        for detail in carried.details:
            error._take(detail)
        if error.reason is not Reason.UNSPECIFIED:
            error.message = carried.message
        return error

    def _take(self, detail: any_pb2.Any) -> None:
        info, retry, usage = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), chat_pb2.Usage()
        if detail.Unpack(info) and info.domain == DOMAIN:
            # A reason newer than we are is still ours: its status says what to do.
            self.reason = Reason(info.reason) if info.reason in _NAMES else _reason_of(self.status)
            known = info.metadata
            self.code, self.type, self.param = known.get("code"), known.get("type"), known.get("param")
            self.upstream, self.upstream_request_id = known.get("upstream"), known.get("upstream_request_id")
            attempts = known.get("attempts", "")
            self.attempts = int(attempts) if attempts.isdecimal() else 1
            upstream_status = known.get("upstream_status", "")
            self.upstream_status = int(upstream_status) if upstream_status.isdecimal() else None
            self.extra = _members(known.get("extra_json", "{}"))
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Unpack(usage):
            self.usage = usage


def _revived(kind: type[CallError], fields: dict[str, Any]) -> CallError:
    error = kind(fields["reason"], fields["message"])
    vars(error).update(fields)
    return error


def _cut(text: str) -> str:
    """The beginning of it that is no longer than a detail may be, in bytes."""
    return text.encode("utf-8", "replace")[:MAX_DETAIL_BYTES].decode("utf-8", "ignore")


def _fitting(extra: Mapping[str, Any]) -> str | None:
    """The JSON object of these members, as far as it may be long; None where that is nothing."""
    kept: list[str] = []
    room = MAX_EXTRA_BYTES - 1
    for name, value in extra.items():
        member = _json(name, value)
        while len(member.encode()) + 1 > room and isinstance(value, str) and len(value) > 2:
            value = value[: len(value) // 2] + "…"
            member = _json(name, value)
        size = len(member.encode()) + 1
        if member and size <= room:
            kept.append(member)
            room -= size
    return f"{{{','.join(kept)}}}" if kept else None


def _json(name: str, value: object) -> str:
    """One member; empty for what is nested too deeply."""
    try:
        return json.dumps({name: value}, ensure_ascii=False, separators=(",", ":"))[1:-1]
    except RecursionError:
        return ""


def _members(text: str) -> dict[str, Any]:
    """The members of a JSON object; none of what is no object, or has halves of characters, which no encoder takes."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


_OLDER: Final[Mapping[int, Reason]] = {
    _C.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    _C.NOT_FOUND: Reason.MODEL_NOT_FOUND,
    _C.OUT_OF_RANGE: Reason.REQUEST_TOO_LARGE,
    _C.FAILED_PRECONDITION: Reason.UPSTREAM_REJECTED,
    _C.UNAUTHENTICATED: Reason.UNAUTHENTICATED,
    _C.PERMISSION_DENIED: Reason.PERMISSION_DENIED,
    _C.RESOURCE_EXHAUSTED: Reason.UPSTREAM_RATE_LIMITED,
    _C.UNAVAILABLE: Reason.UPSTREAM_OVERLOADED,
    _C.DEADLINE_EXCEEDED: Reason.DEADLINE_EXCEEDED,
    _C.UNIMPLEMENTED: Reason.UNIMPLEMENTED,
}


def _reason_of(status: int) -> Reason:
    return _OLDER.get(status, Reason.INTERNAL)

"""What a call raises: `CallError` in kinds that one can catch by what there is to do about them.

All of them carry what `CallError` documents: reason, param, retry_after, usage so far, what the upstream said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from google.rpc import code_pb2

from trestle.errors import DETAILS_KEY, CallError, Reason
from trestle.v1 import chat_pb2


class InvalidRequest(CallError):
    """The request as it is cannot be answered; `param` names the field at fault where it is known."""


class ContextTooLong(InvalidRequest):
    """The conversation is longer than the model's context."""


class ContentRejected(InvalidRequest):
    """The upstream's safety checks refused the request."""


class Unsupported(InvalidRequest):
    """The family cannot do what `param` asks, or ignores it and the call was strict."""


class ModelNotFound(CallError):
    """No such model at the upstream."""


class Unauthenticated(CallError):
    """The worker does not know who calls: no token or certificate, or a wrong one."""


class PermissionDenied(CallError):
    """The worker knows who calls, and does not let them."""


class RateLimited(CallError):
    """The upstream's limit is reached; `retry_after` says for how many seconds, when it is known."""


class Unavailable(CallError):
    """The worker or its upstream cannot be reached or is overloaded; another try later may succeed."""


class Truncated(Unavailable):
    """The answer was cut: what came is not all of it."""


class TimedOut(CallError):
    """The call's deadline has passed, or the upstream took longer than the worker lets it."""


class UpstreamFailed(CallError):
    """The upstream failed, broke its protocol, or does not accept the worker's credential."""


class WorkerFailed(CallError):
    """The worker failed, or gRPC on the way: a message too large, for instance."""


class Unimplemented(CallError):
    """The worker's family has no such method."""


class Cancelled(CallError):
    """The call was ended before its answer: the client or its stream was closed meanwhile, or the worker gave up."""


_C = code_pb2
_BY_REASON: Final[Mapping[Reason, type[CallError]]] = {
    Reason.UNSUPPORTED: Unsupported,
    Reason.CONTEXT_LENGTH_EXCEEDED: ContextTooLong,
    Reason.CONTENT_REJECTED: ContentRejected,
    Reason.UPSTREAM_RATE_LIMITED: RateLimited,
    Reason.RATE_LIMITED: RateLimited,
    Reason.UPSTREAM_TRUNCATED: Truncated,
    Reason.UPSTREAM_PROTOCOL: UpstreamFailed,
    Reason.UPSTREAM_FAILED: UpstreamFailed,
    Reason.UPSTREAM_CREDENTIAL: UpstreamFailed,
    Reason.UPSTREAM_QUOTA: UpstreamFailed,
}
# For the other reasons, and for what gRPC says by itself. Its RESOURCE_EXHAUSTED is a message too large, no rate.
_BY_STATUS: Final[Mapping[int, type[CallError]]] = {
    _C.INVALID_ARGUMENT: InvalidRequest,
    _C.OUT_OF_RANGE: InvalidRequest,
    _C.FAILED_PRECONDITION: InvalidRequest,
    _C.NOT_FOUND: ModelNotFound,
    _C.UNAUTHENTICATED: Unauthenticated,
    _C.PERMISSION_DENIED: PermissionDenied,
    _C.UNAVAILABLE: Unavailable,
    _C.DEADLINE_EXCEEDED: TimedOut,
    _C.UNIMPLEMENTED: Unimplemented,
    _C.CANCELLED: Cancelled,
}


def failure(error: Any) -> CallError:
    """The exception for a failed call of gRPC's, asyncio's (`AioRpcError`) or the other's (`RpcError`)."""
    details = next((value for name, value in error.trailing_metadata() or () if name == DETAILS_KEY), None)
    return typed(CallError.from_status(error.code().value[0], error.details() or "", details))


def typed(error: CallError) -> CallError:
    """The same error as the kind that it is."""
    kind = _BY_REASON.get(error.reason) or _BY_STATUS.get(error.status, WorkerFailed)
    return kind(
        error.reason,
        error.message,
        param=error.param,
        code=error.code,
        type=error.type,
        retry_after=error.retry_after,
        upstream=error.upstream,
        upstream_status=error.upstream_status,
        upstream_request_id=error.upstream_request_id,
        usage=error.usage,
        attempts=error.attempts,
        status=error.status,
    )


def ended_early(usage: chat_pb2.Usage | None) -> Truncated:
    """A call that ended with OK and yet without its finish: a worker that does not keep the contract."""
    return Truncated(Reason.UPSTREAM_TRUNCATED, "The worker ended the answer without a finish.", usage=usage)


def closed() -> Cancelled:
    """A call that this side has ended while somebody was reading it."""
    return Cancelled(Reason.UNSPECIFIED, "The call was closed.", status=_C.CANCELLED)

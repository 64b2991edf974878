"""Every reason and every status has its kind, and a kind loses nothing of the error."""

from __future__ import annotations

import copy
import pickle

import pytest
from google.rpc import code_pb2

from trestle import client
from trestle.client.errors import typed
from trestle.errors import STATUS, CallError, Reason
from trestle.v1 import chat_pb2

KINDS = {
    Reason.UNSPECIFIED: client.WorkerFailed,
    Reason.INVALID_REQUEST: client.InvalidRequest,
    Reason.UNSUPPORTED: client.Unsupported,
    Reason.MODEL_NOT_FOUND: client.ModelNotFound,
    Reason.CONTEXT_LENGTH_EXCEEDED: client.ContextTooLong,
    Reason.CONTENT_REJECTED: client.ContentRejected,
    Reason.REQUEST_TOO_LARGE: client.InvalidRequest,
    Reason.UPSTREAM_REJECTED: client.InvalidRequest,
    Reason.UNAUTHENTICATED: client.Unauthenticated,
    Reason.PERMISSION_DENIED: client.PermissionDenied,
    Reason.UPSTREAM_RATE_LIMITED: client.RateLimited,
    Reason.RATE_LIMITED: client.RateLimited,
    Reason.UPSTREAM_OVERLOADED: client.Unavailable,
    Reason.UPSTREAM_UNREACHABLE: client.Unavailable,
    Reason.UPSTREAM_TIMEOUT: client.TimedOut,
    Reason.UPSTREAM_PROTOCOL: client.UpstreamFailed,
    Reason.UPSTREAM_TRUNCATED: client.Truncated,
    Reason.UPSTREAM_FAILED: client.UpstreamFailed,
    Reason.UPSTREAM_CREDENTIAL: client.UpstreamFailed,
    Reason.UPSTREAM_QUOTA: client.UpstreamFailed,
    Reason.OVERLOADED: client.Unavailable,
    Reason.INTERNAL: client.WorkerFailed,
    Reason.DEADLINE_EXCEEDED: client.TimedOut,
    Reason.UNIMPLEMENTED: client.Unimplemented,
}
OF_GRPC = {
    code_pb2.CANCELLED: client.Cancelled,
    code_pb2.UNKNOWN: client.WorkerFailed,
    code_pb2.DEADLINE_EXCEEDED: client.TimedOut,
    code_pb2.RESOURCE_EXHAUSTED: client.WorkerFailed,
    code_pb2.UNIMPLEMENTED: client.Unimplemented,
    code_pb2.INTERNAL: client.WorkerFailed,
    code_pb2.UNAVAILABLE: client.Unavailable,
    code_pb2.UNAUTHENTICATED: client.Unauthenticated,
}


@pytest.mark.parametrize("reason", Reason)
def test_each_reason(reason: Reason) -> None:
    carried = CallError.from_status(STATUS[reason], "No.", CallError(reason, "No.").to_status())
    assert type(typed(carried)) is KINDS[reason]


@pytest.mark.parametrize("status", OF_GRPC)
def test_each_status_that_grpc_makes_itself(status: int) -> None:
    error = typed(CallError.from_status(status, "No.", None))
    assert type(error) is OF_GRPC[status]
    assert (error.status, error.reason) == (status, Reason.UNSPECIFIED)


def test_nothing_is_lost() -> None:
    error = CallError(
        Reason.UPSTREAM_RATE_LIMITED,
        "Slow down.",
        param="messages[0]",
        code="rate_limit_exceeded",
        type="requests",
        retry_after=2.5,
        upstream="first",
        upstream_status=429,
        upstream_request_id="req_1",
        usage=chat_pb2.Usage(input_tokens=1),
        attempts=3,
    )
    for other in (typed(error), pickle.loads(pickle.dumps(typed(error))), copy.copy(typed(error))):
        assert type(other) is client.RateLimited
        assert vars(other) == vars(error)
        assert str(other) == "Slow down."

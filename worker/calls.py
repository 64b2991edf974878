"""What every method of the worker's service shares: the metadata beside a call, and its failure."""

from __future__ import annotations

import asyncio
import logging
import sys
import urllib.parse
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, NoReturn, Protocol, TypeVar

import grpc

from trestle.errors import DETAILS_KEY, CallError, Reason
from trestle.logs import failure, serving
from trestle.rpc.call import Call
from trestle.v1 import chat_pb2
from worker.callers import ANYBODY, Caller

if TYPE_CHECKING:
    from worker.tracing import CallTrace, Tracing

T = TypeVar("T")

log: Final = logging.getLogger("worker")
STATUS_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_FAILED: Final = frozenset({"UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"})
TRACE: Final = ("traceparent", "tracestate")  # as trestle.traces says, which only who traces need import
IGNORED_PARAMS: Final = "x-trestle-ignored-params"
ATTEMPTS: Final = "x-trestle-attempts"
FLUSH_INTERVAL: Final = "x-trestle-flush-interval"
_MOST_FLUSH: Final = 10.0
_MAX_HEADER: Final = 2048
_CREDENTIAL: Final = "x-trestle-credential-bin"  # as trestle.sealed says, which only who unseals need import
_NO_RETRY: Final = ("grpc-retry-pushback-ms", "-1")
# A call ends so many seconds before its gRPC deadline, or this share of the time it had, whichever is less.
_MARGIN: Final = 0.2
_MARGIN_SHARE: Final = 0.1


class _Whose(NamedTuple):
    """What stands on every line of the log about a call."""

    caller: str
    account: str
    request_id: str
    session: str
    client: str

    def log_fields(self) -> dict[str, str]:
        """What every line of the log that is written for it says."""
        fields = {"caller": self.caller, "account": self.account, "request_id": self.request_id[:128]}
        if self.session:
            fields["session"] = self.session
        if self.client:
            fields["client"] = self.client
        return fields


class CallMetadata:
    """What travels beside a request, from gRPC metadata, and what is known of the call itself.

    request: what was asked. caller: who calls, as worker.callers has it; empty where nobody asks. direct: it is known,
    and no gateway. account, session, client: whom it calls for; empty where it does not say, or may not. credential:
    the account's own, sealed; empty where it brings none. request_id: empty when the caller gave none. strict: an
    ignored parameter is an error. flush: for how many seconds a stream's pieces may wait for each other, in the
    caller's words; empty for none. may_retry: no other target waits, so retries are this worker's business. deadline:
    an instant of the loop's clock by which the call must have ended, a little before gRPC's own, so that its status and
    details still arrive; None for none. usage: what was used so far. upstream: who was asked, by its name; empty while
    nobody was. status: what it ended with, by its name in gRPC. notes: what the answer's beginning is to say of it.
    retries: how often an upstream was asked once more. began_at: when a stream first said something, of the loop's
    clock; zero for never. context: of the trace that it came with, as headers. trace: its spans; None where there are
    none. reason: why it failed; empty where it did not. last: the response that it ended with; None where there is
    none.
    """

    __slots__ = (
        "_begun",
        "_context",
        "_since",
        "account",
        "began_at",
        "caller",
        "client",
        "context",
        "credential",
        "deadline",
        "direct",
        "flush",
        "last",
        "may_retry",
        "notes",
        "reason",
        "request",
        "request_id",
        "retries",
        "session",
        "status",
        "strict",
        "trace",
        "upstream",
        "usage",
    )

    def __init__(self, context: Call, request: Any) -> None:
        now = asyncio.get_running_loop().time()
        self._since = now
        self._context = context
        self._begun = False
        self.notes: tuple[tuple[str, str], ...] = ()
        self.context: dict[str, str] = {}
        self.trace: CallTrace | None = None
        self.reason = ""
        self.last: Any = None
        self.retries = 0
        self.began_at = 0.0
        self.request = request
        who: Caller = context.caller or ANYBODY
        self.caller, trusted = who
        self.direct = not trusted
        self.account = self.session = self.client = ""
        self.credential = b""
        self.upstream = ""
        self.status = grpc.StatusCode.CANCELLED.name
        self.request_id = ""
        self.strict = False
        self.flush = ""
        self.may_retry = True
        self.usage: chat_pb2.Usage | None = None
        left = context.time_remaining()
        self.deadline: float | None = (
            None if left is None else now + left - min(_MARGIN, left * _MARGIN_SHARE)
        )
        for name, value in context.metadata:
            if name == "x-request-id":
                self.request_id = _text(value)
            elif name == "x-trestle-strict":
                self.strict = value == "true"
            elif name == FLUSH_INTERVAL:
                self.flush = _text(value)
            elif name == "x-trestle-attempts-left":
                self.may_retry = value == "0"
            elif name in TRACE:
                self.context[name] = _text(value)
            elif trusted:
                if name == "x-account-id":
                    self.account = _text(value)
                elif name == "x-session-id":
                    self.session = _text(value)
                elif name == "x-client-id":
                    self.client = _text(value)
                elif name == _CREDENTIAL and isinstance(value, bytes):
                    self.credential = value
        serving.set(_Whose(self.caller, self.account, self.request_id, self.session, self.client))

    def carried(self) -> dict[str, str]:
        """Headers that go to upstreams with what is asked for it."""
        return {"x-request-id": self.request_id, **self.context} if self.request_id else self.context

    def flush_interval(self) -> float:
        """Seconds for which a stream's pieces may wait for each other. Raises `CallError` for what is none."""
        if not self.flush:
            return 0.0
        try:
            seconds = float(self.flush)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= _MOST_FLUSH:
            raise CallError(
                Reason.INVALID_REQUEST,
                f"{FLUSH_INTERVAL}: must be seconds between 0 and {_MOST_FLUSH:g}.",
                param=FLUSH_INTERVAL,
            )
        return seconds

    def left(self) -> float | None:
        """Seconds until the deadline; None for none."""
        return None if self.deadline is None else self.deadline - asyncio.get_running_loop().time()

    @property
    def method(self) -> str:
        """What was asked for: Chat, Complete, Embed, Moderate, ListModels."""
        return str(self.request.DESCRIPTOR.name.removesuffix("Request"))

    def seconds_to_first(self) -> float:
        """To the first chunk of a stream that said something; zero where none came."""
        return self.began_at - self._since if self.began_at else 0.0

    def seconds(self) -> float:
        """Since it began."""
        return asyncio.get_running_loop().time() - self._since

    async def begin(self) -> None:
        """The answer begins: its initial metadata leave, if they have anything to say. Not before: after them gRPC no
        longer tries again by itself, which a caller may have asked it to."""
        if self._begun:
            return
        self._begun = True
        notes = self.notes
        if self.retries:
            notes = (*notes, (ATTEMPTS, str(1 + self.retries)))
        if notes:
            await self._context.send_initial_metadata(notes)

    def record(self) -> None:
        """Writes down who called and what it used."""
        usage = self.usage
        log.info(
            "call",
            extra={
                "caller": self.caller,
                "account": self.account,
                "method": self.method,
                "model": getattr(self.request, "model", "")[:256],
                "upstream": self.upstream,
                "status": self.status,
                "input_tokens": None if usage is None else usage.input_tokens,
                "output_tokens": None if usage is None else usage.output_tokens,
                "estimated": None if usage is None else usage.estimated,
                "seconds": round(self.seconds(), 3),
            },
        )


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("ascii", "replace")


class Observer(Protocol):
    """Told of every call; may neither wait nor fail."""

    def ended(self, call: CallMetadata, seconds: float) -> None:
        """It has, after so many seconds."""


class Calls:
    """The calls of the service. most: how many may be open at once. logged: which have a line in the log. open: how
    many are; failed: how many ended for a reason that is not their caller's. observer: told of their ends. tracing:
    makes their spans; None where there are none."""

    def __init__(self, most: int = sys.maxsize, logged: Literal["direct", "all", "none"] = "none") -> None:
        self._most = most
        self._logged = logged
        self.open = 0
        self.failed = 0
        self.observer: Observer | None = None
        self.tracing: Tracing | None = None
        self._emptied: asyncio.Event | None = None

    def limit(self, most: int, logged: Literal["direct", "all", "none"]) -> None:
        """From now on; as at the beginning."""
        self._most, self._logged = most, logged

    async def run(self, work: Coroutine[Any, Any, T], context: Call, call: CallMetadata) -> T:
        """The outcome of a method's work; what it raises ends the call with a status and its details, and is logged."""
        if self.open >= self._most:
            work.close()
            full = "The worker serves as many calls as it may; try again shortly."
            try:
                await _fail(CallError(Reason.OVERLOADED, full, code="overloaded", retry_after=1.0), context, call)
            finally:
                self._tell(call)
        self.open += 1
        if self.tracing is not None:
            self.tracing.began(call)
        try:
            call.last = answer = await _guarded(work, context, call)
            call.status = grpc.StatusCode.OK.name
            return answer
        finally:
            self.open -= 1
            self.failed += call.status in _FAILED
            self._tell(call)
            if self.tracing is not None:
                self.tracing.ended(call)
            if self._emptied is not None and not self.open:
                self._emptied.set()

    def _tell(self, call: CallMetadata) -> None:
        """A call has ended, or could not begin."""
        if self._logged == "all" or (call.direct and self._logged == "direct"):
            call.record()
        if self.observer is not None:
            self.observer.ended(call, call.seconds())

    async def emptied(self) -> None:
        """Returns once no call is open; for who lets no other one begin."""
        if self.open:
            self._emptied = asyncio.Event()
            await self._emptied.wait()


async def _guarded(work: Awaitable[T], context: Call, call: CallMetadata) -> T:
    try:
        async with asyncio.timeout_at(call.deadline):
            return await work
    except CallError as error:
        failure = error
    except TimeoutError:
        failure = CallError(
            Reason.DEADLINE_EXCEEDED, "The request took longer than it may.", code="deadline_exceeded", usage=call.usage
        )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # the caller is gone
        log.exception("a call was cancelled from within")
        failure = CallError(Reason.INTERNAL, "The worker failed.")
    except Exception:
        log.exception("a call failed")
        failure = CallError(Reason.INTERNAL, "The worker failed.")
    await _fail(failure, context, call)


async def _fail(error: CallError, context: Call, call: CallMetadata) -> NoReturn:
    call.status, call.reason = STATUS_CODES[error.status].name, error.reason.value
    error.usage = call.usage = error.usage or call.usage
    log.warning("%s failed", call.method, extra={"status": call.status, **failure(error)})
    trailers: tuple[tuple[str, str | bytes], ...] = ((DETAILS_KEY, error.to_status()),)
    if error.reason is not Reason.OVERLOADED:
        # One layer tries again, and this was it: gRPC's own retries, which callers may have set up, are to stop. Only
        # where we were too busy to begin another replica may be less so.
        trailers = (*trailers, _NO_RETRY)
    await context.abort(STATUS_CODES[error.status], error.text, trailers)


def note_ignored(ignored: Sequence[str], family: str, call: CallMetadata) -> None:
    """Has the answer's beginning say which parameters are not honoured (WIRE 21). Raises `CallError` when the caller is
    strict."""
    if not ignored:
        return
    if call.strict:
        raise CallError(
            Reason.UNSUPPORTED,
            f"The {family} family does not honour {', '.join(ignored)}.",
            param=ignored[0],
            code="unsupported_parameter",
        )
    call.notes = ((IGNORED_PARAMS, _header(ignored)),)


def _header(names: Sequence[str]) -> str:
    """Names as one header's value. They may be the client's own words: what no header can hold is quoted as in a URL,
    and what is beyond 2 KB is an ellipsis."""
    quoted = ",".join(urllib.parse.quote(name, safe="[]") for name in names)
    return quoted if len(quoted) <= _MAX_HEADER else f"{quoted[:_MAX_HEADER].rpartition(',')[0]},..."


def drop_foreign_seals(request: chat_pb2.ChatRequest, family: str) -> None:
    """Takes away what other families sealed: their vendors alone can read it, and this one's would refuse the request.
    The texts stay."""
    for message in request.messages:
        for block in message.reasoning:
            if block.sealed_by and block.sealed_by != family:
                block.signature, block.redacted = "", b""
        for call in message.tool_calls:
            if call.sealed_by and call.sealed_by != family:
                call.signature = ""


def need(present: bool, param: str) -> None:
    """Raises `CallError` (INVALID_REQUEST) for a field that no family can do without."""
    if not present:
        raise CallError(Reason.INVALID_REQUEST, f"{param} is missing.", param=param)


def unimplemented(family: str, what: str) -> CallError:
    """The family has no such method."""
    return CallError(Reason.UNIMPLEMENTED, f"The {family} family has no {what}.")

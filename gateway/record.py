"""What became of one request: written once by those who serve it, read at its end by whoever keeps account.

Every request to an endpoint with a `kind` has one, on every way out. Nothing is computed that nobody asks for.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from trestle.errors import CallError, Reason
from trestle.tokens import input_tokens, tokens_in
from trestle.v1 import chat_pb2, completion_pb2, embedding_pb2

if TYPE_CHECKING:
    from gateway.attempt import Attempt
    from gateway.exchange import Exchange
    from gateway.limits.limiter import Admission
    from gateway.routed import RoutedCall
    from gateway.sessions import SessionWatch

_MAY_BE_BILLED: Final = frozenset(
    {Reason.UPSTREAM_TRUNCATED, Reason.UPSTREAM_TIMEOUT, Reason.UPSTREAM_PROTOCOL, Reason.DEADLINE_EXCEEDED}
)

_COUNTED: Final = (chat_pb2.ChatRequest, completion_pb2.CompleteRequest, embedding_pb2.EmbedRequest)
_PARTS: Final = (
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "accepted_prediction_tokens",
    "rejected_prediction_tokens",
)
"""Of `Usage`, beside its totals."""


class Outcome(enum.StrEnum):
    """How a request ended. DONE: with its whole answer. REFUSED: no worker was asked. FAILED: with an error, be it an
    event in a stream. CANCELLED: its client left. STALLED: its client read nothing for too long and was cut off."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STALLED = "stalled"


class Answer(Protocol):
    """An answer on its way to the client, as far as it has come. usage: the last that was told. chars: of what was
    generated. finish: the first choice's finish_reason; empty while there is none. model: what the upstream calls
    the one that answers; empty until it has begun."""

    @property
    def usage(self) -> chat_pb2.Usage | None: ...
    @property
    def chars(self) -> int: ...
    @property
    def finish(self) -> str: ...
    @property
    def model(self) -> str: ...


class Observer(Protocol):
    """Told of every recorded request, in its own turn of the event loop: neither may wait, fail, or take long."""

    def began(self, record: Record) -> None:
        """The key is known, nothing has been asked of it yet, and nothing of the request has been read."""

    def ended(self, record: Record) -> None:
        """All that will be known is. Called once for each `began`."""


class Record:
    """One request. Times are of the monotonic clock (`time.perf_counter`), in seconds, but for `at`.

    exchange: who asked and under which ids. kind: as the endpoint says. at: when it began, Unix seconds. model: the
    public name that was asked for; empty until the body was read. stream: whether it asked for one. call: its way over
    the targets; None where it never came to one. request: as it went to the worker. answer: what came back, of a chat
    or completion; usage: of the rest. first: when the first content was sent; zero for never. ended: zero until then.
    error: why it failed. watch: who tells its session; None where it has none.
    admission: by whose limits it was let in; None where it has none. status: of the HTTP answer; zero
    where none was begun.
    """

    __slots__ = (
        "_uses",
        "admission",
        "answer",
        "at",
        "began",
        "call",
        "cancelled",
        "ended",
        "error",
        "exchange",
        "first",
        "kind",
        "model",
        "request",
        "stalled",
        "status",
        "stream",
        "usage",
        "watch",
    )

    def __init__(self, exchange: Exchange, kind: str) -> None:
        self.exchange = exchange
        self.kind = kind
        self.at = time.time()
        self.began = time.perf_counter()
        self.first = 0.0
        self.ended = 0.0
        self.model = ""
        self.stream = False
        self.status = 0
        self.cancelled = False
        self.stalled = False
        self.request: object = None
        self.call: RoutedCall | None = None
        self.answer: Answer | None = None
        self.usage: chat_pb2.Usage | None = None
        self.error: CallError | None = None
        self.watch: SessionWatch | None = None
        self.admission: Admission | None = None
        self._uses: Sequence[tuple[Attempt, chat_pb2.Usage | None]] | None = None

    def end(self) -> None:
        """Nothing more will be known."""
        self.ended = time.perf_counter()

    @property
    def outcome(self) -> Outcome:
        if self.stalled:
            return Outcome.STALLED
        if self.cancelled:
            return Outcome.CANCELLED
        if self.error is None:
            return Outcome.DONE
        return Outcome.FAILED if self.attempts else Outcome.REFUSED

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Every target that was asked, in the order of asking."""
        return self.call.attempts if self.call is not None else ()

    @property
    def target(self) -> Attempt | None:
        """Who answered, or was asked last."""
        return self.call.current if self.call is not None else None

    @property
    def finish(self) -> str:
        """The answer's finish_reason; empty where it has none."""
        return self.answer.finish if self.answer is not None else ""

    def used(self, attempt: Attempt) -> chat_pb2.Usage | None:
        """The tokens that one of the attempts cost: as told, as far as told and estimated beyond (marked so), or None
        where nothing says that it cost any."""
        if attempt is self.target and (self.answer is not None or self.usage is not None):
            return self._answered(attempt)
        told = attempt.error.usage if attempt.error is not None else None
        if told is None:
            told = attempt.usage
        if told is None:
            return self._estimate(0) if _may_have_cost(attempt) else None
        return _whole(told)

    def uses(self) -> Sequence[tuple[Attempt, chat_pb2.Usage | None]]:
        """Every attempt and what it cost, as `used` says. Ask once the request has ended."""
        if self._uses is None:
            self._uses = [(attempt, self.used(attempt)) for attempt in self.attempts]
        return self._uses

    def total(self) -> chat_pb2.Usage | None:
        """What all attempts cost together; None where nothing says that they cost any. Ask once the request has
        ended."""
        uses = self.uses()
        if len(uses) == 1:
            return uses[0][1]
        return add(used for _, used in uses if used is not None)

    def _answered(self, attempt: Attempt) -> chat_pb2.Usage | None:
        answer = self.answer
        told = self.usage if answer is None else answer.usage
        if attempt.error is not None and attempt.error.usage is not None:
            told = attempt.error.usage
        chars = 0 if answer is None else answer.chars
        if told is None:
            if self.outcome is Outcome.DONE or chars or _may_have_cost(attempt):
                return self._estimate(chars)
            return None
        told = _whole(told)
        if self.outcome is Outcome.DONE:
            return told
        guess = tokens_in(chars)
        if guess <= told.output_tokens:
            return told
        # What was told at its start does not count what came since.
        partial = chat_pb2.Usage()
        partial.CopyFrom(told)
        partial.output_tokens, partial.estimated = guess, True
        partial.ClearField("total_tokens")
        return partial

    def _estimate(self, chars: int) -> chat_pb2.Usage:
        known = input_tokens(self.request) if isinstance(self.request, _COUNTED) else 0
        return chat_pb2.Usage(input_tokens=known, output_tokens=tokens_in(chars), estimated=True)


def _whole(told: chat_pb2.Usage) -> chat_pb2.Usage:
    """With reasoning in the output, where the total says that it is counted beside it (xAI does)."""
    beside = told.reasoning_tokens
    if not beside or told.total_tokens != told.input_tokens + told.output_tokens + beside:
        return told
    whole = chat_pb2.Usage()
    whole.CopyFrom(told)
    whole.output_tokens += beside
    whole.ClearField("total_tokens")
    return whole


def _may_have_cost(attempt: Attempt) -> bool:
    """Whether an upstream may have worked for it, though it told of no usage."""
    if attempt.began:
        return True
    return attempt.error is None or attempt.error.reason in _MAY_BE_BILLED


def add(usages: Iterable[chat_pb2.Usage]) -> chat_pb2.Usage | None:
    """The sum; None of nothing. It is an estimate where one of them is."""
    total: chat_pb2.Usage | None = None
    for usage in usages:
        if total is None:
            total = chat_pb2.Usage()
            total.CopyFrom(usage)
            continue
        total.input_tokens += usage.input_tokens
        total.output_tokens += usage.output_tokens
        total.estimated = total.estimated or usage.estimated
        for name in _PARTS:
            if usage.HasField(name):
                setattr(total, name, getattr(total, name) + getattr(usage, name))
        total.ClearField("total_tokens")
    return total

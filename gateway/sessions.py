"""What happens in sessions, told to whoever listens: requests that carry an `x-session-id`, as events in order.

Events are kept for a while in memory, so that a listener that lost its connection goes on where it was. Neither prompts
nor answers are in them.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, Protocol

from gateway.exchange import Exchange
from gateway.openai.fields import invalid
from gateway.record import Outcome, Record
from gateway.settings import SessionSettings
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2, session_pb2

Id = tuple[int, int]
"""Of an event: a time in Unix milliseconds and a number; `MS-NUMBER` in the open."""
_BEGINNING: Final[Id] = (0, 0)


class Sessions(Protocol):
    """Where events go and come from."""

    def publish(self, account: str, session: str, event: session_pb2.SessionEvent) -> None:
        """Gives the event its id, and to whoever listens. Never waits."""

    def read(self, account: str, session: str, after: Id) -> AsyncIterator[Sequence[session_pb2.SessionEvent]]:
        """The events behind `after`, those that are kept and then each as it happens; until `close`."""

    async def close(self) -> None:
        """Ends every reading."""


class NoSessions:
    """Where nobody can listen: what one of several processes knows the others' listeners would miss."""

    def publish(self, account: str, session: str, event: session_pb2.SessionEvent) -> None:
        """Nobody hears it."""

    def read(self, account: str, session: str, after: Id) -> AsyncIterator[Sequence[session_pb2.SessionEvent]]:
        """Raises `CallError` (UNIMPLEMENTED)."""
        message = "This gateway has several processes, which need gateway.redis to tell of sessions."
        raise CallError(Reason.UNIMPLEMENTED, message, code="sessions_unavailable")

    async def close(self) -> None:
        """There is nothing to end."""


def event_id(text: str) -> Id:
    """The id that an event has shown; empty: before all events. Raises `CallError` (INVALID_REQUEST)."""
    if not text:
        return _BEGINNING
    first, dash, second = text.partition("-")
    if not (dash and first.isdecimal() and second.isdecimal() and len(text) <= 40):
        raise invalid("after", "Invalid event id: it must be one that an event of the session has shown.")
    return int(first), int(second)


def gap() -> session_pb2.SessionEvent:
    """Events may be missing here."""
    return session_pb2.SessionEvent(gap=session_pb2.SessionGap())


class _Kept:
    """One session. ids, events: the newest ones, as bytes, for a message takes a kilobyte more. trimmed: older ones are
    gone. news: set when there are some; None where nobody waits. used: when it was used last, of the monotonic
    clock."""

    __slots__ = ("events", "ids", "news", "readers", "trimmed", "used")

    def __init__(self) -> None:
        self.ids: list[Id] = []
        self.events: list[bytes] = []
        self.trimmed = False
        self.readers = 0
        self.news: asyncio.Event | None = None
        self.used = 0.0

    def tell(self) -> None:
        """Whoever waits looks again."""
        if self.news is not None:
            self.news.set()
            self.news = None


class SessionHub:
    """The sessions of one process."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._sessions: dict[tuple[str, str], _Kept] = {}  # the one used longest ago first
        self._last = _BEGINNING
        self._closed = False

    def publish(self, account: str, session: str, event: session_pb2.SessionEvent) -> None:
        """See `Sessions`."""
        now = int(time.time() * 1000)
        # The clock may be set back; ids only grow.
        self._last = (now, 0) if now > self._last[0] else (self._last[0], self._last[1] + 1)
        event.id = f"{self._last[0]}-{self._last[1]}"
        kept = self._use(account, session)
        kept.ids.append(self._last)
        kept.events.append(event.SerializeToString())
        if len(kept.ids) > self._settings.events * 2:
            del kept.ids[: -self._settings.events]
            del kept.events[: -self._settings.events]
            kept.trimmed = True
        kept.tell()

    async def read(self, account: str, session: str, after: Id) -> AsyncIterator[Sequence[session_pb2.SessionEvent]]:
        """See `Sessions`."""
        kept = self._use(account, session)
        kept.readers += 1
        try:
            while not self._closed:
                at = bisect_right(kept.ids, after)
                events = [session_pb2.SessionEvent.FromString(each) for each in kept.events[at:]]
                if events:
                    if at == 0 and kept.trimmed:
                        events.insert(0, gap())
                    after = kept.ids[-1]
                    yield events
                else:
                    kept.news = kept.news or asyncio.Event()
                    await kept.news.wait()
        finally:
            kept.readers -= 1
            kept.used = time.monotonic()

    async def close(self) -> None:
        """See `Sessions`."""
        self._closed = True
        for kept in self._sessions.values():
            kept.tell()

    def _use(self, account: str, session: str) -> _Kept:
        """The session, now the one used last. Others are forgotten when their time has come or they are too many."""
        key = (account, session)
        kept = self._sessions.pop(key, None) or _Kept()
        self._sessions[key] = kept
        kept.used = now = time.monotonic()
        for oldest in list(_first(self._sessions, 2)):
            idle = self._sessions[oldest]
            too_many = len(self._sessions) > self._settings.most
            if idle is not kept and not idle.readers and (too_many or now - idle.used > self._settings.idle):
                del self._sessions[oldest]
        return kept


def _first(sessions: Iterable[tuple[str, str]], count: int) -> Iterable[tuple[str, str]]:
    return (key for key, _ in zip(sessions, range(count), strict=False))


class SessionWatch:
    """Tells of one request what its chunks say. Feed it all of them; `end` it with the request's record."""

    __slots__ = ("_account", "_calls", "_client", "_request", "_session", "_sessions")

    def __init__(self, sessions: Sessions, exchange: Exchange, session: str, client: str) -> None:
        self._sessions = sessions
        self._account = exchange.identity.account
        self._session = session
        self._request = exchange.id
        self._client = client
        self._calls: set[tuple[int, int]] = set()

    def started(self, record: Record) -> None:
        """A worker is about to be asked."""
        self._tell(started=session_pb2.RequestStarted(model=record.model, kind=record.kind, stream=record.stream))

    def feed(self, chunks: Iterable[Any]) -> None:
        """Takes the next chunks, of a chat or a completion."""
        for chunk in chunks:
            kind = chunk.WhichOneof("event")
            if kind == "usage":
                self._tell(usage=chunk.usage)
            elif kind == "tool_call":
                call = chunk.tool_call
                if (chunk.choice, call.index) not in self._calls:
                    self._calls.add((chunk.choice, call.index))
                    said = session_pb2.ToolCallEmitted(
                        id=call.id, name=call.name, choice=chunk.choice, index=call.index
                    )
                    self._tell(tool_call=said)

    def used(self, usage: chat_pb2.Usage) -> None:
        """What an answer cost that has no chunks."""
        self._tell(usage=usage)

    def end(self, record: Record) -> None:
        """Nothing more comes."""
        outcome = record.outcome
        total = record.total() if outcome is not Outcome.DONE else None
        if total is not None:
            self._tell(usage=total)  # an estimate, where no more is known
        duration = int((record.ended - record.began) * 1000)
        if outcome is Outcome.DONE:
            self._tell(finished=session_pb2.RequestFinished(finish_reason=record.finish, duration_ms=duration))
            return
        failed = session_pb2.RequestFailed(outcome=outcome.value, duration_ms=duration)
        if record.error is not None:
            failed.reason, failed.message = record.error.reason.value, record.error.message
        self._tell(failed=failed)

    def _tell(self, **event: Any) -> None:
        told = session_pb2.SessionEvent(request_id=self._request, client_id=self._client, **event)
        told.time.GetCurrentTime()
        self._sessions.publish(self._account, self._session, told)

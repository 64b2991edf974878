"""Session events over Redis (or Valkey) streams, for when several gateways run: whoever serves the request, every
gateway tells its listeners."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.redis import UNREACHABLE
from gateway.sessions import Id, event_id, gap
from gateway.settings import SessionSettings
from trestle.logs import words
from trestle.v1 import session_pb2

log = logging.getLogger("gateway")
_FIELD: Final = b"event"
_MOST_WAITING: Final = 10_000
_AT_ONCE: Final = 100
_BLOCK_MS: Final = 1000
"""How late the end of a reading may be noticed."""
_REST: Final = 1.0


class SharedSessions:
    """A `Sessions`. quick: a client for what must not take long; patient: one that waits for what is to come."""

    def __init__(self, quick: Redis, patient: Redis, settings: SessionSettings) -> None:
        self._quick = quick
        self._patient = patient
        self._settings = settings
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()
        self._closed = False
        self._well = True
        self._task = asyncio.create_task(self._publishing())

    def publish(self, account: str, session: str, event: session_pb2.SessionEvent) -> None:
        """See `Sessions`. While Redis is away events wait, the newest of them."""
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
        self._waiting.append((_key(account, session), event.SerializeToString()))
        self._news.set()

    async def read(self, account: str, session: str, after: Id) -> AsyncIterator[Sequence[session_pb2.SessionEvent]]:
        """See `Sessions`."""
        key = _key(account, session)
        asked = False
        while not self._closed:
            _leave_if_told()
            try:
                if not asked and await self._trimmed(key, after):
                    yield [gap()]
                asked = True
                found: Any = await self._patient.xread({key: f"{after[0]}-{after[1]}"}, _AT_ONCE, _BLOCK_MS)
            except UNREACHABLE as error:
                self._complain(error)
                await asyncio.sleep(_REST)
                continue
            entries = _entries(found)
            if entries:
                after = event_id(entries[-1].id)
                yield entries

    async def close(self) -> None:
        """See `Sessions`."""
        self._closed = True
        while not self._task.done():  # redis-py swallows a cancellation that comes together with its answer
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=_REST / 10)
        for client in (self._quick, self._patient):
            await client.aclose()

    async def _publishing(self) -> None:
        while not self._closed:
            await self._news.wait()
            self._news.clear()
            try:
                while self._waiting:
                    await self._publish_some()
            except UNREACHABLE as error:
                self._complain(error)
                await asyncio.sleep(_REST)
                self._news.set()
            else:
                if not self._well:
                    log.info("session events: Redis is there again")
                self._well = True

    async def _publish_some(self) -> None:
        some = [self._waiting[i] for i in range(min(_AT_ONCE, len(self._waiting)))]
        async with self._quick.pipeline(transaction=False) as pipeline:
            for key, event in some:
                pipeline.xadd(key, {_FIELD: event}, maxlen=self._settings.events, approximate=True)
                pipeline.expire(key, max(1, int(self._settings.idle)))
            await pipeline.execute()
        for _ in some:
            self._waiting.popleft()

    async def _trimmed(self, key: str, after: Id) -> bool:
        """Whether events behind `after` may be gone."""
        try:
            about: Any = await self._quick.xinfo_stream(key)
        except ResponseError:
            return False  # nothing has happened in it
        first = about.get("first-entry")
        older = first is not None and event_id(first[0].decode()) > after
        return older and about.get("entries-added", 0) > about["length"]

    def _complain(self, error: BaseException) -> None:
        if self._well:
            # What Redis says of a command comes with the command: the session's name, and the event.
            said = words(error) if isinstance(error, ResponseError) else str(error)
            log.warning("session events: Redis cannot be reached (%s)", said or words(error))
        self._well = False


def _leave_if_told() -> None:
    """Raises CancelledError where this task was cancelled: while a command leaves redis-py may keep that to itself."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _entries(found: Any) -> list[session_pb2.SessionEvent]:
    events: list[session_pb2.SessionEvent] = []
    streams = found.values() if isinstance(found, dict) else (entries for _, entries in found or ())
    for entries in streams:
        # Of the newer protocol an array of arrays, of the older one the entries themselves.
        flat = [each for some in entries for each in (some if isinstance(some, list) else [some])]
        for name, fields in flat:
            event = session_pb2.SessionEvent.FromString(fields[_FIELD])
            event.id = name.decode()
            events.append(event)
    return events


def _key(account: str, session: str) -> str:
    return f"trestle:{{{account}}}:session:{session}"

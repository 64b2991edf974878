"""The ledger: told of every request, it brings a row for each to the database, by way of the outbox.

No request waits for it. A row is in memory for `flush_interval` at most, then on this machine's disk, where it survives
the process, and the database's absence; once the database has it, it is gone from here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from gateway.ledger.outbox import Outbox
from gateway.ledger.rows import Row, row_of
from gateway.prices import Prices
from gateway.record import Record
from gateway.settings import LedgerSettings
from gateway.store.usage import DAY_MS, UsageStore, Which
from trestle.errors import CallError
from trestle.logs import first_line

log = logging.getLogger("gateway")
T = TypeVar("T")
_MOST_PENDING: Final = 100_000
"""Rows in memory while the outbox cannot be written."""
_ADOPT_EVERY: Final = 60.0
_FORGET_EVERY: Final = 3600.0
_LAST_DELIVERY: Final = 5.0
_MOST_NAMED: Final = 10


class Ledger:
    """An `Observer`. waiting: rows that the database does not have yet, those taken over from others included. lost:
    rows that it will never have."""

    def __init__(self, store: UsageStore, outbox: Outbox, settings: LedgerSettings, prices: Prices) -> None:
        self.waiting = 0
        self.lost = 0
        self._store = store
        self._outbox = outbox
        self._settings = settings
        self._prices = prices
        self._pending: list[Row] = []
        self._writing = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._complaints: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def open(cls, store: UsageStore, folder: Path, settings: LedgerSettings, prices: Prices) -> Ledger:
        """Raises `OSError` where the outbox cannot be."""
        return cls(store, Outbox(folder, settings.max_outbox_bytes), settings, prices)

    def began(self, record: Record) -> None:
        """Nothing is known yet."""

    def ended(self, record: Record) -> None:
        """The request's row is made, and on its way."""
        if len(self._pending) >= _MOST_PENDING:
            self.lost += 1
            self._complain(
                "memory", "rows of the ledger are lost: nothing takes them fast enough"
            )
            return
        self._pending.append(row_of(record, self._prices))
        self.waiting += 1

    def start(self) -> None:
        """Inside a running loop."""
        self._tasks = [asyncio.create_task(work()) for work in (self._flushing, self._delivering, self._forgetting)]

    async def close(self) -> None:
        """Delivers what it can within a moment. The rest stays in the outbox, be that full; what the disk does not take
        either is lost."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_DELIVERY):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        # Who was cancelled within a transaction holds its connection, and that holds SQLite's lock.
        self._tasks.clear()
        why = ""
        try:
            async with asyncio.timeout(_LAST_DELIVERY):
                await self._flush(beyond=True)
                await self._deliver()
        except Exception as error:  # noqa: BLE001 (the gateway ends in any case)
            why = type(error).__name__
        if self._pending:
            self._settle(len(self._pending))
            self._lose(len(self._pending), "nothing takes them, and the gateway ends")
        if why and self.waiting:
            log.warning("%d rows of the ledger wait in the outbox for the next start: %s", self.waiting, why)
        try:
            await _in_thread(self._outbox.close)
        except OSError as error:
            log.warning("the outbox cannot be closed: %s", error)

    async def _flushing(self) -> None:
        while not self._stopping.is_set():
            await self._pause(self._settings.flush_interval)
            await self._flush()

    async def _flush(self, *, beyond: bool = False) -> None:
        """Raises nothing but the cancellation of who waits, who then finds the rows where they were."""
        if not self._pending:
            return
        async with self._writing:
            rows, self._pending = self._pending, []
            try:
                await self._write(rows, beyond)
            except asyncio.CancelledError:
                # Written or not: twice is not too often.
                self._pending = rows + self._pending
                raise
            except Exception:
                log.exception("rows of the ledger cannot be written")
                self._settle(len(rows))
                self._lose(len(rows), "they cannot be written")

    async def _write(self, rows: list[Row], beyond: bool) -> None:
        try:
            await _in_thread(lambda: self._outbox.append(rows, beyond=beyond))
        except OSError as error:
            self._complain("outbox", f"the outbox cannot be written: {error}")
            await self._deliver_at_once(rows)
        else:
            self._well("outbox")
            self._well("memory")

    async def _deliver_at_once(self, rows: list[Row]) -> None:
        """Past the outbox; rows that the database does not take either wait in memory, the newest of them."""
        try:
            await self._add(rows)
        except Exception:  # noqa: BLE001 (whatever it is, the rows are not given up yet)
            self._pending = rows + self._pending
            too_many = len(self._pending) - _MOST_PENDING
            if too_many > 0:
                del self._pending[:too_many]
                self._settle(too_many)
                self._lose(too_many, "neither the disk nor the database takes them")
        else:
            self._settle(len(rows))

    async def _add(self, rows: Sequence[Row]) -> None:
        refused = await self._store.add(rows)
        if refused:
            named = ", ".join(row.request for row in refused[:_MOST_NAMED])
            log.error("the database refuses rows of the ledger, of the requests %s", named)
            self._lose(len(refused), "the database refuses them")

    async def _delivering(self) -> None:
        adopted = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() - adopted > _ADOPT_EVERY or not adopted:
                    adopted = time.monotonic()
                    await self._adopt()
                await self._deliver()
            except CallError as error:
                said = f"{error.message} ({first_line(error.__cause__)})"
                self._complain("database", f"rows of the ledger wait in the outbox: {said}")
            except OSError as error:
                self._complain("reading", f"the outbox cannot be read: {error}")
            except Exception:
                # Whatever it is, the next delivery may go well.
                if "failure" not in self._complaints:
                    log.exception("rows of the ledger are not delivered")
                self._complaints.add("failure")
            await self._pause(self._settings.interval)

    async def _adopt(self) -> None:
        async with self._writing:
            rows = await _in_thread(self._outbox.adopt)
        if rows:
            self.waiting += rows
            log.info("the outbox: %d rows are taken over from processes that are no more", rows)

    async def _deliver(self) -> None:
        """Brings what is in the outbox to the database. Raises `CallError` and `OSError`."""
        async with self._writing:
            await _in_thread(self._outbox.seal)
        for file in await _in_thread(self._outbox.sealed):
            rows, broken = await _in_thread(partial(self._outbox.read, file))
            await self._add(rows)
            await _in_thread(partial(self._outbox.remove, file))
            self._settle(len(rows) + broken)
            if broken:
                self._lose(broken, f"they cannot be read in {file.name}")
        for what in ("database", "reading", "failure"):
            self._well(what)

    async def _forgetting(self) -> None:
        while self._settings.keep_days and not self._stopping.is_set():
            old = Which(0, int(time.time() * 1000) - self._settings.keep_days * DAY_MS, {})
            try:
                gone = await self._store.forget(old, alone=True)
            except CallError as error:
                log.info("old rows of the ledger are not deleted: %s", error.message)
            else:
                if gone:
                    log.info("%d rows of the ledger were older than %d days", gone, self._settings.keep_days)
            await self._pause(_FORGET_EVERY)

    async def _pause(self, seconds: float) -> None:
        """Less where the ledger is about to close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _settle(self, rows: int) -> None:
        """They wait no more."""
        self.waiting = max(0, self.waiting - rows)

    def _lose(self, rows: int, why: str) -> None:
        self.lost += rows
        log.error("%d rows of the ledger are lost, %d since the start: %s", rows, self.lost, why)

    def _complain(self, what: str, words: str) -> None:
        """Once for as long as it lasts."""
        if what not in self._complaints:
            self._complaints.add(what)
            log.warning("%s", words)

    def _well(self, what: str) -> None:
        if what in self._complaints:
            self._complaints.discard(what)
            log.info("the ledger is well again (%s)", what)


async def _in_thread(work: Callable[[], T]) -> T:
    """What touches the files is not left halfway: who is cancelled waits for it, so that nobody else begins beside."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise

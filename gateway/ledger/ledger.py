"""The ledger: told of every request, it brings a row for each to the database, by way of the outbox.

No request waits for it. A row is in memory for `flush_interval` at most, then on this machine's disk, where it survives
the process, and the database's absence; once the database has it, it is gone from here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Final

from gateway.ledger.outbox import Outbox
from gateway.ledger.rows import Row, row_of
from gateway.prices import Prices
from gateway.record import Record
from gateway.settings import LedgerSettings
from gateway.store.usage import DAY_MS, UsageStore, Which
from trestle.errors import CallError

log = logging.getLogger("gateway")
_MOST_PENDING: Final = 100_000
"""Rows in memory while the outbox cannot be written."""
_ADOPT_EVERY: Final = 60.0
_FORGET_EVERY: Final = 3600.0
_LAST_DELIVERY: Final = 5.0


class Ledger:
    """An `Observer`. waiting: rows that the database does not have yet, as far as this process knows of them. lost:
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
        self._pending.append(row_of(record, self._prices))
        self.waiting += 1

    def start(self) -> None:
        """Inside a running loop."""
        self._tasks = [asyncio.create_task(work()) for work in (self._flushing, self._delivering, self._forgetting)]

    async def close(self) -> None:
        """Delivers what it can within a moment; the rest stays in the outbox."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(_LAST_DELIVERY):
                await self._flush()
                await self._deliver()
        except (TimeoutError, CallError, OSError) as error:
            log.warning("rows of the ledger wait in the outbox for the next start: %s", type(error).__name__)
        try:
            await asyncio.to_thread(self._outbox.close)
        except OSError as error:
            log.warning("the outbox cannot be closed: %s", error)

    async def _flushing(self) -> None:
        while True:
            await asyncio.sleep(self._settings.flush_interval)
            await self._flush()

    async def _flush(self) -> None:
        if not self._pending:
            return
        async with self._writing:
            rows, self._pending = self._pending, []
            try:
                await asyncio.shield(asyncio.to_thread(self._outbox.append, rows))
            except OSError as error:
                self._complain("outbox", f"the outbox cannot be written: {error}")
                await self._deliver_at_once(rows)
            else:
                self._well("outbox")

    async def _deliver_at_once(self, rows: list[Row]) -> None:
        """Past the outbox; rows that the database does not take either wait in memory, the newest of them."""
        try:
            await self._store.add(rows)
        except CallError:
            self._pending = rows + self._pending
            beyond = len(self._pending) - _MOST_PENDING
            if beyond > 0:
                del self._pending[:beyond]
                self._lose(beyond)
        else:
            self.waiting -= len(rows)

    async def _delivering(self) -> None:
        adopted = 0.0
        while True:
            try:
                if time.monotonic() - adopted > _ADOPT_EVERY or not adopted:
                    adopted = time.monotonic()
                    files = await asyncio.to_thread(self._outbox.adopt)
                    if files:
                        log.info("the outbox: %d files are taken over from processes that are no more", files)
                await self._deliver()
            except CallError as error:
                said = f"{error.message} ({error.__cause__})"
                self._complain("database", f"rows of the ledger wait in the outbox: {said}")
            except OSError as error:
                self._complain("reading", f"the outbox cannot be read: {error}")
            except Exception:
                # One bad row must not end the deliveries for good.
                if "failure" not in self._complaints:
                    log.exception("rows of the ledger are not delivered")
                self._complaints.add("failure")
            await asyncio.sleep(self._settings.interval)

    async def _deliver(self) -> None:
        """Brings what is in the outbox to the database. Raises `CallError` and `OSError`."""
        async with self._writing:
            await asyncio.to_thread(self._outbox.seal)
        for file in await asyncio.to_thread(self._outbox.sealed):
            rows = await asyncio.to_thread(self._outbox.read, file)
            await self._store.add(rows)
            await asyncio.to_thread(self._outbox.remove, file)
            self.waiting = max(0, self.waiting - len(rows))
        for what in ("database", "reading", "failure"):
            self._well(what)

    async def _forgetting(self) -> None:
        while self._settings.keep_days:
            old = Which(0, int(time.time() * 1000) - self._settings.keep_days * DAY_MS, {})
            try:
                gone = await self._store.forget(old)
            except CallError as error:
                log.info("old rows of the ledger are not deleted: %s", error.message)
            else:
                if gone:
                    log.info("%d rows of the ledger were older than %d days", gone, self._settings.keep_days)
            await asyncio.sleep(_FORGET_EVERY)

    def _lose(self, rows: int) -> None:
        self.lost += rows
        self.waiting -= rows
        log.error("%d rows of the ledger are lost; %d since the start", rows, self.lost)

    def _complain(self, what: str, words: str) -> None:
        """Once for as long as it lasts."""
        if what not in self._complaints:
            self._complaints.add(what)
            log.warning("%s", words)

    def _well(self, what: str) -> None:
        if what in self._complaints:
            self._complaints.discard(what)
            log.info("the ledger is well again (%s)", what)

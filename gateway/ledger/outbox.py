"""The outbox: files of rows on this machine's disk, until the database has them.

One process writes one file at a time, a row to a line. A file that is full, or due, is sealed: it is written no more,
and whoever has brought its rows to the database removes it. What a process leaves behind that was killed is taken over
by another one. Nothing here is asynchronous: call it in a thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.ledger.rows import Row

log = logging.getLogger("gateway")
_DECODER: Final = msgspec.json.Decoder(Row)
_ENCODER: Final = msgspec.json.Encoder()
_SEALED: Final = ".rows"
_OPEN: Final = ".open"
_LOCK: Final = ".lock"
_NEW: Final = ".new"


class OutboxFullError(OSError):
    """The outbox holds as much as it may."""


class Outbox:
    """One process's. folder: shared with others of this machine; most: bytes that it may hold. Raises `OSError` where
    the folder cannot be used, here and in every method."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder = folder
        self._most = most
        self._name = f"{time.time_ns():020x}-{os.getpid()}"
        self._number = 0
        self._file: int | None = None
        self._path = folder
        self._size = 0
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = folder / (self._name + _NEW)
        self._lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Others see it only now that it is held: a lock that nobody holds is one of the dead.
        new.rename(new.with_suffix(_LOCK))

    def append(self, rows: Sequence[Row], *, beyond: bool = False) -> None:
        """Writes the rows, all or none: a process that is killed now has not lost them. beyond: even where the outbox
        holds all that it may."""
        lines = _ENCODER.encode_lines(rows)
        if self._file is None:
            if not beyond and self._held() + len(lines) > self._most:
                raise OutboxFullError(f"the outbox {self._folder} holds {self._most} bytes, and no more may be")
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._path = self._next(_OPEN)
            self._file = os.open(self._path, flags, 0o600)
            self._size = 0
        try:
            written = os.write(self._file, lines)
            if written < len(lines):
                raise OSError("the disk is full")
        except OSError:
            # What is half a row now would spoil the next.
            os.ftruncate(self._file, self._size)
            raise
        self._size += written

    def seal(self) -> None:
        """What has been written may be read."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self._path.rename(self._path.with_suffix(_SEALED))

    def sealed(self) -> list[Path]:
        """This process's sealed files, the oldest first."""
        return sorted(self._folder.glob(f"{self._name}.*{_SEALED}"))

    def read(self, file: Path) -> tuple[list[Row], int]:
        """A file's rows, and how many of its lines are none: their writer's machine went down."""
        rows: list[Row] = []
        lines = file.read_bytes().splitlines()
        for line in lines:
            try:
                rows.append(_DECODER.decode(line))
            except (msgspec.DecodeError, UnicodeDecodeError):
                log.error("a row of the ledger cannot be read in %s", file.name)
        return rows, len(lines) - len(rows)

    def remove(self, file: Path) -> None:
        """Its rows are in the database."""
        file.unlink(missing_ok=True)

    def adopt(self) -> int:
        """Takes over what processes have left behind that are no more; returns how many rows. Not beside `append`."""
        adopted = 0
        for lock in self._folder.glob(f"*{_LOCK}"):
            if lock.stem != self._name:
                adopted += self._adopt(lock)
        return adopted

    def close(self) -> None:
        """The end. What is not in the database stays for the next process."""
        self.seal()
        if not self.sealed():
            (self._folder / (self._name + _LOCK)).unlink(missing_ok=True)
        os.close(self._lock)

    def _adopt(self, lock: Path) -> int:
        try:
            held = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            return 0
        files = [file for file in sorted(self._folder.glob(f"{lock.stem}.*")) if file != lock]
        rows = 0
        for file in files:
            rows += file.read_bytes().count(b"\n")
            file.rename(self._next(_SEALED))
        lock.unlink(missing_ok=True)
        os.close(held)
        return rows

    def _next(self, suffix: str) -> Path:
        self._number += 1
        return self._folder / f"{self._name}.{self._number:08}{suffix}"

    def _held(self) -> int:
        return sum(file.stat().st_size for file in self._folder.glob(f"{self._name}.*"))

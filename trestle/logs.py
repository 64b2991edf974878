"""The services' logs: a line for each event, as text or as JSON, and on each what is being served while it is written.

Every line of this process goes through here, libraries' too. What a line says of the request that it belongs to is put
together when it is written; a request that writes none pays for one context variable.

A line says what happened in words of this project and of its configuration. What a client, an upstream or an exception
said may be a prompt, an answer or a key: no line repeats it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, Literal, Protocol, TextIO, TypeAlias

import msgspec

from trestle.errors import CallError, Reason

Form: TypeAlias = Literal["text", "json"]
_OURS: Final = ("gateway", "worker", "trestle")
OWN_WORDS: Final = frozenset(
    {
        Reason.UNSPECIFIED,
        Reason.UNAUTHENTICATED,
        Reason.OVERLOADED,
        Reason.INTERNAL,
        Reason.DEADLINE_EXCEEDED,
        Reason.RATE_LIMITED,
        Reason.UPSTREAM_UNREACHABLE,
    }
)
"""Reasons whose messages are this project's, or gRPC's, and quote nobody."""
_QUOTED: Final = frozenset(' "=\n\r\t')
_FIRST: Final = ("timestamp", "level", "service", "family", "logger", "event", "exception", "stack")
_OF_EVERY_RECORD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}
"""What a record has whatever is logged; the rest are the fields of its line (`extra=`)."""
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Served(Protocol):
    """A request, or a call."""

    def log_fields(self) -> Mapping[str, str]:
        """What every line that is written while it is served says of it."""


serving: Final[ContextVar[Served | None]] = ContextVar("serving", default=None)
"""What this task serves now. Something small: a pooled connection keeps the context that it was made in."""


def configure(form: Form, level: str, **always: str) -> None:
    """Lines to standard error from now on. level: as `set_level` has it. always: fields of every line, as `service`."""

    handler = _Lines()
    handler.setFormatter(_Formatter(_json if form == "json" else _text, always))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    set_level(level)


def tell(line: str) -> None:
    """A line to standard output, for who started this process. Where nothing takes it, as a full disk does not, it is
    lost, and we go on."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError):
            _write(sys.stdout, f"{line}\n")


class _Formatter(logging.Formatter):
    """write: makes one line of its fields. always: of every line."""

    def __init__(self, write: Callable[[dict[str, Any]], str], always: Mapping[str, str]) -> None:
        super().__init__()
        self._write = write
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        """The line of this event."""
        line = {field: value for field, value in record.__dict__.items() if field not in _OF_EVERY_RECORD}
        line |= self._always
        line["timestamp"] = f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        line["level"] = record.levelname.lower()
        line["logger"] = record.name
        line["event"] = _said(record.name, record.getMessage())
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = _where(record.exc_info[1])
        if record.stack_info:
            line["stack"] = record.stack_info
        served = serving.get()
        if served is not None:
            for field, value in served.log_fields().items():
                line.setdefault(field, value)
        return self._write(line)


class _Lines(logging.Handler):
    """Lines to standard error, each written at once and none kept: one that a full disk does not take is lost, and the
    next one that it takes begins as a line of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = True

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:
            return
        try:
            said = self.format(record)
        except Exception:  # noqa: BLE001 (whatever it is, who wrote a line goes on)
            self.handleError(record)
            return
        try:
            _write(sys.stderr, f"{said}\n" if self._whole else f"\n{said}\n")
        except OSError:
            self._whole = False
        else:
            self._whole = True


def _write(stream: TextIO, text: str) -> None:
    """Past the stream's buffer: what is left in it would be tried again with each line, and fail at the process's end.
    Raises `OSError`."""
    raw = getattr(stream.buffer, "raw", stream.buffer)
    left = text.encode("utf-8", "backslashreplace")
    while left:
        left = left[raw.write(left) or len(left) :]


def set_level(level: str) -> None:
    """What is written of our own lines. Libraries are heard from a warning on, whatever the level: what they say in
    passing holds statements and their values, and headers."""
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())


def failure(error: CallError) -> dict[str, object]:
    """An error as fields of a line. Its message is for the caller's eyes: it may quote the request, or an upstream that
    quotes it; it stands here, as `why`, where it cannot. cause: what the system said, where it did."""
    fields: dict[str, object] = {"reason": error.label}
    if error.upstream:
        fields["upstream"] = error.upstream
    if error.upstream_status is not None:
        fields["upstream_status"] = error.upstream_status
    elif error.reason in OWN_WORDS:
        fields["why"] = error.message
    if error.__cause__ is not None:
        fields["cause"] = words(error.__cause__)
    return fields


def words(error: BaseException) -> str:
    """What an exception may say in a line: its kind, and of the system's errors what the system calls them."""
    kind = type(error).__name__
    return f"{kind}: {error.strerror}" if isinstance(error, OSError) and error.strerror else kind


def first_line(error: BaseException | None) -> str:
    """What the failure of a database may say in a line: below its first one stand statements, and rows."""
    return str(error).partition("\n")[0] or type(error).__name__


def _said(logger: str, event: str) -> str:
    """Of a library's words the first line; below it stand what it was about, and what was said. asyncio's first line
    itself goes on with arguments."""
    if logger.partition(".")[0] in _OURS:
        return event
    first = event.partition("\n")[0]
    return re.split("[(<]", first, maxsplit=1)[0].rstrip() if logger == "asyncio" else first


def _where(error: BaseException) -> str:
    """Where an exception comes from, as Python shows it, but for its text."""
    shown: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        stack = "".join(traceback.format_tb(cause.__traceback__))
        shown.append(f"Traceback (most recent call last):\n{stack}{words(cause)}")
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n\n".join(reversed(shown))


def _json(line: dict[str, Any]) -> str:
    ordered = {field: line.pop(field) for field in _FIRST if field in line}
    return _encode({**ordered, **line}).decode("utf-8", "replace")


def _text(line: dict[str, Any]) -> str:
    at, level = line.pop("timestamp"), line.pop("level")
    said = line.pop("event").replace("\r", "\\r").replace("\n", "\\n")
    who = " ".join(line.pop(field) for field in ("service", "family") if field in line)
    failure = line.pop("exception", "")
    logger = line.pop("logger")
    if logger != who.partition(" ")[0]:
        line = {"logger": logger, **line}
    fields = "".join(f" {field}={_value(value)}" for field, value in line.items())
    return f"{at} {level.upper()} {who}: {said}{fields}" + (f"\n{failure}" if failure else "")


def _value(value: object) -> str:
    """In quotes where it would not be one word."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _encode(value).decode()
    return _encode(text).decode() if _QUOTED.intersection(text) else text

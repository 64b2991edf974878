"""The services' logs: a line for each event, as text or as JSON, and on each what is being served while it is written.

Every line of this process goes through here, libraries' too. What a line says of the request that it belongs to is put
together when it is written; a request that writes none pays for one context variable.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import Any, Final, Literal, Protocol, TypeAlias

import msgspec
import structlog

Form: TypeAlias = Literal["text", "json"]
_QUOTED: Final = frozenset(' "=\n\r\t')
_FIRST: Final = ("timestamp", "level", "service", "family", "logger", "event", "exception", "stack")
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


class Served(Protocol):
    """A request, or a call."""

    def log_fields(self) -> Mapping[str, str]:
        """What every line that is written while it is served says of it."""


serving: Final[ContextVar[Served | None]] = ContextVar("serving", default=None)
"""What this task serves now."""


def configure(form: Form, level: str, **always: str) -> None:
    """Lines to standard error from now on. always: fields of every line, as `service`."""

    def add(logger: object, name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.update(always)
        served = serving.get()
        if served is not None:
            for field, value in served.log_fields().items():
                event.setdefault(field, value)
        return event

    handler = logging.StreamHandler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                _json if form == "json" else _text,
            ],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _json(logger: object, name: str, event: MutableMapping[str, Any]) -> str:
    ordered = {field: event.pop(field) for field in _FIRST if field in event}
    return _encode({**ordered, **event}).decode("utf-8", "replace")


def _text(logger: object, name: str, event: MutableMapping[str, Any]) -> str:
    at, level, said = event.pop("timestamp"), event.pop("level"), event.pop("event")
    who = " ".join(event.pop(field) for field in ("service", "family") if field in event)
    failure = event.pop("exception", "")
    if event["logger"] == who.partition(" ")[0]:
        del event["logger"]
    fields = "".join(f" {field}={_value(value)}" for field, value in event.items())
    return f"{at} {level.upper()} {who}: {said}{fields}" + (f"\n{failure}" if failure else "")


def _value(value: object) -> str:
    """In quotes where it would not be one word."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else _encode(value).decode()
    return _encode(text).decode() if _QUOTED.intersection(text) else text

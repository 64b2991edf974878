"""What a caller may ask of the echo itself: length, pace, faults. Pure.

Options stand in the model's name, `echo?delay_ms=20&chunk=4`, or in the request's member `echo`; the member wins.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl

import msgspec
from msgspec import Meta

from trestle.errors import CallError, Reason
from trestle.openjson import members
from worker.http_errors import reason_of

MODEL: Final = "echo"
MAX_TOKENS: Final = 1_000_000
"""The longest answer, in tokens."""

_NULL: Final = b"null"
_PATH: Final = re.compile(r" - at `\$\.(\w+)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(.*)`$", re.DOTALL)
_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
_Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """chunk: tokens per chunk. tokens: the text's length, repeated or cut; None: as it is. ttft_ms, delay_ms:
    milliseconds before the first chunk and between two. fault: what goes wrong; after: behind how many chunks of each
    choice (zero: before anything is said). status, retry_after: of the error, an HTTP status and seconds. reasoning:
    tokens of thinking; None: as reasoning_effort says. refusal: the text is a refusal."""

    chunk: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] = 1
    tokens: _Count | None = None
    ttft_ms: _Milliseconds = 0.0
    delay_ms: _Milliseconds = 0.0
    fault: Literal["error", "cut", "stall", "malformed"] | None = None
    after: _Count = 0
    status: Annotated[int, Meta(ge=400, le=599)] | None = None
    retry_after: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    reasoning: _Count | None = None
    refusal: bool = False


ALL: Final = frozenset(Options.__struct_fields__)
_NONE: Final = Options()
_OF_FAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "after": ("error", "cut", "stall", "malformed"),
    "status": ("error",),
    "retry_after": ("error",),
}


def options_of(model: str, extra_json: bytes, taken: frozenset[str] = ALL) -> Options:
    """The options of a request.

    model: its name, with options behind a `?`. extra_json: its members that have no name in the contract. taken: names
    of the options that have a meaning for it. Raises `CallError`: MODEL_NOT_FOUND for another name, INVALID_REQUEST
    naming `model` or `echo.NAME` for an option that is none.
    """
    base, _, query = model.partition("?")
    if base != MODEL:
        raise CallError(
            Reason.MODEL_NOT_FOUND, f"The echo family has no model '{base}'.", param="model", code="model_not_found"
        )
    options = _in_name(query) if query else _NONE
    given = _in_member(extra_json) if extra_json else {}
    if given:
        options = msgspec.structs.replace(options, **given)
    if options is not _NONE:
        _check(options, taken, given)
    return options


def failure(options: Options) -> CallError:
    """The error that the options ask for; a stall has none."""
    if options.fault == "cut":
        return CallError(Reason.UPSTREAM_TRUNCATED, "The echo broke off, as it was asked to.")
    if options.fault == "malformed":
        return CallError(Reason.UPSTREAM_PROTOCOL, "The echo said what cannot be read, as it was asked to.")
    status = options.status or 500
    return CallError(
        reason_of(status),
        f"The echo failed with status {status}, as it was asked to.",
        retry_after=options.retry_after,
        upstream_status=status,
    )


def fail_if_asked(options: Options, what: str) -> None:
    """For `what`, which is no stream: raises the error that the options ask for, UNSUPPORTED for a stall."""
    if options.fault == "stall":
        raise CallError(Reason.UNSUPPORTED, f"The echo's {what} cannot stall.", param="model")
    if options.fault is not None:
        raise failure(options)


@functools.lru_cache(maxsize=256)
def _in_name(query: str) -> Options:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        raise _invalid("model", "they must be written as name=value&name=value") from None
    given = dict(pairs)
    if len(given) < len(pairs):
        raise _invalid("model", "one is given twice")
    try:
        return msgspec.convert(given, Options, strict=False)
    except msgspec.ValidationError as error:
        raise _invalid("model", _words(error)[1]) from None


def _in_member(extra_json: bytes) -> dict[str, Any]:
    """The options that the member sets; null is absent."""
    try:
        asked = members(extra_json).get("echo")
    except msgspec.DecodeError:
        raise CallError(Reason.INVALID_REQUEST, "extra_json: not a JSON object.", param="extra_json") from None
    if asked is None or bytes(asked) == _NULL:
        return {}
    try:
        given = {name: value for name, value in members(asked).items() if bytes(value) != _NULL}
        found = msgspec.json.decode(msgspec.json.encode(given), type=Options)
    except msgspec.ValidationError as error:
        name, what = _words(error)
        raise _invalid(f"echo.{name}" if name else "echo", what) from None
    return {name: getattr(found, name) for name in given}


def _check(options: Options, taken: frozenset[str], in_member: Container[str]) -> None:
    """Options that mean nothing, alone or for this request, are a mistake worth telling."""
    for name in Options.__struct_fields__:
        if getattr(options, name) == getattr(_NONE, name):
            continue
        if name not in taken:
            what = "means nothing here"
        elif name in _OF_FAULTS and options.fault not in _OF_FAULTS[name]:
            what = "means nothing without its fault"
        else:
            continue
        raise _invalid(f"echo.{name}" if name in in_member else "model", f"'{name}' {what}")


def _words(error: msgspec.ValidationError) -> tuple[str, str]:
    """The option at fault (empty when it is their whole) and what is wrong with it."""
    text = str(error)
    unknown, path = _UNKNOWN.search(text), _PATH.search(text)
    if unknown is not None:
        return unknown.group(1), f"there is no option '{unknown.group(1)}'"
    if path is not None:
        return path.group(1), f"'{path.group(1)}': {text[: path.start()]}".replace("`", "")
    return "", text.replace("`", "")


def _invalid(param: str, what: str) -> CallError:
    return CallError(Reason.INVALID_REQUEST, f"The echo's options: {what}.", param=param, code="invalid_value")

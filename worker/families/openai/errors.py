"""Error bodies of OpenAI-like upstreams. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Raw

from trestle.errors import CallError, Reason
from worker.http_errors import detail_of, extra_of, reason_of, request_id, retry_after

# Codes and types by which vendors say what their status does not, or what they say inside an answer of status 200.
_WORDS: Final[Mapping[str, Reason]] = {
    "context_length_exceeded": Reason.CONTEXT_LENGTH_EXCEEDED,
    "exceed_context_size_error": Reason.CONTEXT_LENGTH_EXCEEDED,
    "content_filter": Reason.CONTENT_REJECTED,
    "content_policy_violation": Reason.CONTENT_REJECTED,
    "data_inspection_failed": Reason.CONTENT_REJECTED,
    "datainspectionfailed": Reason.CONTENT_REJECTED,
    "responsibleaipolicyviolation": Reason.CONTENT_REJECTED,
    "1301": Reason.CONTENT_REJECTED,  # Zhipu's number
    "model_not_found": Reason.MODEL_NOT_FOUND,
    "rate_limit_exceeded": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_error": Reason.UPSTREAM_RATE_LIMITED,
    "rate_limit_reached_error": Reason.UPSTREAM_RATE_LIMITED,
    "insufficient_quota": Reason.UPSTREAM_RATE_LIMITED,
    "invalid_api_key": Reason.UPSTREAM_CREDENTIAL,
    "authentication_error": Reason.UPSTREAM_CREDENTIAL,
    "payment_required": Reason.UPSTREAM_QUOTA,
    "capacity_exceeded": Reason.UPSTREAM_OVERLOADED,
    "overloaded": Reason.UPSTREAM_OVERLOADED,
    "overloaded_error": Reason.UPSTREAM_OVERLOADED,
    "engine_overloaded_error": Reason.UPSTREAM_OVERLOADED,
    "provider_overloaded": Reason.UPSTREAM_OVERLOADED,
    "provider_unavailable": Reason.UPSTREAM_OVERLOADED,
    "server_error": Reason.UPSTREAM_FAILED,
    "invalid_request_error": Reason.INVALID_REQUEST,
    "validation": Reason.INVALID_REQUEST,  # TGI's
}
# Of these, those that say more than the status of a refusal beside them.
_OF_THE_REQUEST: Final = frozenset({Reason.CONTEXT_LENGTH_EXCEEDED, Reason.CONTENT_REJECTED})
_MEMBERS: Final = frozenset({"message", "type", "param", "code"})
_GROQS_CAPACITY: Final = 498
_REFUSALS: Final = frozenset({400, 403, 404, 413, 422})
_MINIMAX: Final[Mapping[int, Reason]] = {
    1002: Reason.UPSTREAM_RATE_LIMITED,
    1004: Reason.UPSTREAM_CREDENTIAL,
    1008: Reason.UPSTREAM_QUOTA,
    1026: Reason.CONTENT_REJECTED,
    1027: Reason.CONTENT_REJECTED,
    1039: Reason.UPSTREAM_RATE_LIMITED,
    2013: Reason.INVALID_REQUEST,
}
_STATUS: Final = re.compile("[45][0-9][0-9]")
_SECONDS: Final = re.compile(r"[0-9]{1,7}(\.[0-9]{1,9})?s")
_CONTEXT_PHRASES: Final = (
    "maximum context length",
    "context window",
    "context length",
    "context size",
    "too many tokens",
    "prompt is too long",
    "maximum prompt length",
    "model token limit",
    "exceeds the maximum number of tokens",
    "input is too long",
    "range of input length",
    "`max_new_tokens` must be <=",
)
_FILTERED_PHRASE: Final = "violates usage guidelines"  # said with a 403 by xAI
_CREDENTIAL_PHRASES: Final = ("incorrect api key", "api key not valid")  # said with a 400 by xAI, by Google


def decode_error(status: int, headers: Mapping[str, str], body: bytes, upstream: str) -> CallError:
    """The meaning of an answer with a status of 300 and up. headers: names in lower case."""
    error = error_from(body, status, headers, upstream)
    told = retry_after(headers)
    error.retry_after = error.retry_after if told is None else told
    error.upstream_request_id = request_id(headers)
    return error


def error_from(body: bytes, status: int | None, headers: Mapping[str, str], upstream: str) -> CallError:
    """The error in a body or event. status: None inside an answer of status 200, where the error itself says all."""
    said = _said(body)
    message, code = said.message, said.code
    words = (word.lower() for word in (said.more, code, said.kind) if word)
    reason = said.reason or next((_WORDS[word] for word in words if word in _WORDS), None)
    if status is not None:
        refined = (status in _REFUSALS and reason in _OF_THE_REQUEST) or (
            status == _GROQS_CAPACITY and reason is Reason.UPSTREAM_OVERLOADED
        )
        reason = reason if refined and reason is not None else reason_of(status)
    elif reason is None:
        inner = said.status if said.status is not None else code
        known = inner is not None and _STATUS.fullmatch(inner)
        reason = reason_of(int(inner)) if inner is not None and known else Reason.UPSTREAM_FAILED
    text = (message or "").lower()
    if reason is Reason.INVALID_REQUEST and any(phrase in text for phrase in _CONTEXT_PHRASES):
        reason = Reason.CONTEXT_LENGTH_EXCEEDED
    elif reason is Reason.INVALID_REQUEST and any(phrase in text for phrase in _CREDENTIAL_PHRASES):
        reason = Reason.UPSTREAM_CREDENTIAL
    elif reason is Reason.UPSTREAM_CREDENTIAL and _FILTERED_PHRASE in text:
        reason = Reason.CONTENT_REJECTED
    if reason is Reason.CONTEXT_LENGTH_EXCEEDED:
        code = "context_length_exceeded"
    kind, param = said.kind, said.param
    if message is None:
        detail = detail_of(body)
        where = f"status {status}" if status is not None else "an error"
        message = f"The upstream answered with {where}" + (f": {detail}" if detail else ".")
    if reason in (Reason.UPSTREAM_CREDENTIAL, Reason.UPSTREAM_QUOTA):
        # About our credential, not the caller's key (WIRE 5): its words may quote the credential, and its code
        # (invalid_api_key) would accuse the caller's.
        message, param, code, kind = "The upstream refused the bridge's credential for it.", None, None, None
        if reason is Reason.UPSTREAM_QUOTA:
            message = "The bridge's account with the upstream has no quota left."
    return CallError(
        reason,
        message,
        param=param,
        code=code,
        type=kind,
        upstream=upstream,
        upstream_status=status,
        retry_after=said.wait,
        extra=extra_of(reason, said.members, _MEMBERS),
    )


def says_error(extra: bytes | Raw, whole: bool = False) -> bool:
    """Whether members beside an answer's own, where there is no choice, are an error in a vendor's own form. whole: of
    an answer in one piece, in which words alone are one too."""
    try:
        return _in_vendors_form(msgspec.json.decode(extra, type=dict[str, Any]), whole)
    except (msgspec.DecodeError, RecursionError):
        return False


def is_error(body: bytes) -> bool:
    """Whether a body that came where an event was due is an error, of OpenAI's form, a vendor's own, or in a list."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    if isinstance(found, list) and found:
        found = found[0]
    return isinstance(found, dict) and (bool(found.get("error")) or _in_vendors_form(found, whole=False))


def _in_vendors_form(found: dict[str, Any], whole: bool) -> bool:
    resp = found.get("base_resp")
    return bool(
        found.get("error_code")
        or found.get("success") is False
        or (isinstance(resp, dict) and resp.get("status_code"))
        or (_text(found.get("message")) and (whole or _says_what(found)))
        or (whole and found.get("detail"))
    )


def _says_what(found: dict[str, Any]) -> bool:
    """Whether there is more of an error than words: its code, or its kind in the members of OpenAI's error."""
    if found.get("code") not in (None, "", 0, 200, "0", "200"):
        return True
    return bool(_text(found.get("type"))) and found.keys() >= {"param", "code"}


class _Said(NamedTuple):
    """What an error body says. more: a word of its own beside the code; status: an HTTP status inside it; reason: what
    the vendor's own form means; wait: seconds until another try."""

    message: str | None = None
    kind: str | None = None
    param: str | None = None
    code: str | None = None
    more: str | None = None
    status: str | None = None
    reason: Reason | None = None
    wait: float | None = None
    members: dict[str, Any] | None = None


def _said(body: bytes) -> _Said:
    """An error body, in any of the forms that vendors use."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Said()
    if isinstance(found, list) and found:  # Google's OpenAI-compatible endpoint wraps its error in a list
        found = found[0]
    if not isinstance(found, dict):
        return _Said()
    inner = found.get("error", found)
    if isinstance(inner, str):
        # xAI's code is a sentence, which says what its message says.
        code = _text(found.get("code"))
        word = code if code is not None and " " not in code else None
        return _Said(inner or None, _text(found.get("error_type")), None, word)
    members = inner if isinstance(inner, dict) and inner is not found else None
    if not isinstance(inner, dict):
        inner = found
    resp = found.get("base_resp")
    if isinstance(resp, dict) and isinstance(resp.get("status_code"), int):  # MiniMax
        number = resp["status_code"]
        return _Said(_text(resp.get("status_msg")), None, None, str(number), reason=_MINIMAX.get(number))
    listed = inner.get("errors")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):  # Cloudflare
        inner = listed[0]
    message = next(filter(None, (_text(inner.get(name)) for name in ("message", "detail", "error_msg", "msg"))), None)
    if message is None:
        odd = next((inner[name] for name in ("detail", "message") if isinstance(inner.get(name), list | dict)), None)
        message = msgspec.json.encode(odd).decode() if odd is not None else None
    told = (each.get(name) for each in (inner, found) for name in ("status_code", "http_code"))  # Cerebras: beside it
    status = next(filter(None, map(_text, told)), None)
    more, message, flagged = _metadata(inner.get("metadata"), message)
    return _Said(
        message,
        _text(inner.get("type")),
        _text(inner.get("param")),
        _text(inner.get("code")) or _text(inner.get("error_code")),
        more,
        status,
        Reason.CONTENT_REJECTED if flagged else None,
        _delay(inner.get("details")),
        members,
    )


def _metadata(metadata: object, message: str | None) -> tuple[str | None, str | None, bool]:
    """What OpenRouter says beside the error: its own word for it, the message with what the vendor behind it said, and
    whether moderation flagged the input."""
    if not isinstance(metadata, dict):
        return None, message, False
    raw = _text(metadata.get("raw"))
    if message and raw and raw not in message:
        message = f"{message}: {detail_of(raw.encode('utf-8', 'replace'))}"
    return _text(metadata.get("error_type")), message, "flagged_input" in metadata


def _delay(details: object) -> float | None:
    """Seconds, from the RetryInfo that Google's endpoint puts into the error: "48s"."""
    for each in details if isinstance(details, list) else ():
        told = each.get("retryDelay") if isinstance(each, dict) else None
        if isinstance(told, str) and _SECONDS.fullmatch(told):
            return float(told[:-1])
    return None


def _text(value: object) -> str | None:
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

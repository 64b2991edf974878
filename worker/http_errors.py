"""What an upstream's HTTP answer means when it is not the one asked for: shared by all families, pure.

The table is WIRE's "Errors": which status of an upstream becomes which reason. A family adds what its vendor's error
body says beside it.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Container, Mapping
from typing import Any, Final

from trestle.errors import Reason

_REASONS: Final[Mapping[int, Reason]] = {
    401: Reason.UPSTREAM_CREDENTIAL,
    402: Reason.UPSTREAM_QUOTA,
    403: Reason.UPSTREAM_CREDENTIAL,
    404: Reason.MODEL_NOT_FOUND,
    400: Reason.INVALID_REQUEST,
    408: Reason.UPSTREAM_TIMEOUT,
    413: Reason.REQUEST_TOO_LARGE,
    422: Reason.INVALID_REQUEST,
    429: Reason.UPSTREAM_RATE_LIMITED,
    502: Reason.UPSTREAM_OVERLOADED,
    503: Reason.UPSTREAM_OVERLOADED,
    504: Reason.UPSTREAM_TIMEOUT,
    529: Reason.UPSTREAM_OVERLOADED,
}


def reason_of(status: int) -> Reason:
    """The reason for an HTTP status of 300 and up; a redirect is never followed and counts as a broken protocol."""
    known = _REASONS.get(status)
    if known is not None:
        return known
    if status < 400:
        return Reason.UPSTREAM_PROTOCOL
    return Reason.UPSTREAM_REJECTED if status < 500 else Reason.UPSTREAM_FAILED


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `retry-after` (seconds or an HTTP date; RFC 9110 10.2.3).

    headers: names in lower case. None when absent or unreadable; never negative.
    """
    text = headers.get("retry-after-ms")
    if text is not None:
        try:
            return _seconds(float(text) / 1000)
        except ValueError:
            pass
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        return _seconds(float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now())
    except (ValueError, OverflowError):
        return None


def _seconds(value: float) -> float | None:
    """None for what no clock can wait: nan, infinity, more than a year."""
    return max(0.0, value) if value < 366 * 86400 else None


def request_id(headers: Mapping[str, str]) -> str | None:
    """The upstream's own id of the request, by the names that vendors use."""
    for name in ("x-request-id", "request-id", "apim-request-id", "x-ms-request-id"):
        if headers.get(name):
            return headers[name]
    return None


def detail_of(body: bytes, limit: int = 300) -> str:
    """An error body that is not the vendor's JSON, cut and on one line, for the message."""
    text = " ".join(body[: limit * 4].decode("utf-8", "replace").split())
    return text if len(text) <= limit else text[:limit] + "…"


def extra_of(reason: Reason, said: Mapping[str, Any] | None, read: Container[str]) -> Mapping[str, Any]:
    """What the upstream's error object says beside the members that were read; nothing of a refusal of our own
    credential or account, which is no business of callers (WIRE 5)."""
    if said is None or reason in (Reason.UPSTREAM_CREDENTIAL, Reason.UPSTREAM_QUOTA):
        return {}
    return {name: value for name, value in said.items() if name not in read and value is not None}

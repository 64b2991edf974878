"""What browsers of other origins may do here. Pure but for the request's headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from gateway.settings import CorsSettings

_ALLOWED_HEADERS: Final = frozenset(
    {
        "authorization",
        "x-api-key",
        "x-client-id",
        "x-session-id",
        "x-request-id",
        "x-request-timeout",
        "x-trestle-strict",
        "content-type",
        "idempotency-key",
        "last-event-id",
        "openai-organization",
        "openai-project",
        "openai-beta",
        "traceparent",
        "tracestate",
        "user-agent",  # the SDK names itself, and not every browser forbids that
    }
)
_EXPOSED_HEADERS: Final = ", ".join(
    (
        "x-request-id",
        "openai-processing-ms",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-trestle-ignored-params",
        "x-trestle-attempts",
        *(f"x-ratelimit-{what}-{of}" for of in ("requests", "tokens") for what in ("limit", "remaining", "reset")),
    )
)


class Cors:
    """The settings as answers' headers."""

    def __init__(self, settings: CorsSettings) -> None:
        self._origins = frozenset(settings.origins)
        self._max_age = str(settings.max_age)

    def headers(self, asked: Mapping[str, str]) -> dict[str, str]:
        """For the answer to a request with these headers; empty when its origin may not read it, or when it is no
        browser's."""
        origin = asked.get("origin") if self._origins else None
        if origin is None:
            return {}
        if "*" in self._origins:
            return {"access-control-allow-origin": "*", "access-control-expose-headers": _EXPOSED_HEADERS}
        if origin not in self._origins:
            return {"vary": "Origin"}
        return {
            "access-control-allow-origin": origin,
            "access-control-expose-headers": _EXPOSED_HEADERS,
            "vary": "Origin",
        }

    def preflight(self, asked: Mapping[str, str], methods: Iterable[str]) -> dict[str, str]:
        """For the answer to a preflight, beside `headers`. methods: what the path takes."""
        wanted = asked.get("access-control-request-headers", "")
        names = [name.strip().lower() for name in wanted.split(",") if name.strip()]
        allowed = [name for name in names if name in _ALLOWED_HEADERS or name.startswith("x-stainless-")]
        headers = {
            "access-control-allow-methods": ", ".join(sorted({"OPTIONS", *methods})),
            "access-control-allow-headers": ", ".join(allowed or sorted(_ALLOWED_HEADERS)),
            "access-control-max-age": self._max_age,
        }
        if asked.get("access-control-request-private-network") == "true":
            headers["access-control-allow-private-network"] = "true"
        return headers

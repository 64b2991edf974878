"""One HTTP request and its answer: what every endpoint shares. Ids, the usual headers, errors as OpenAI says them."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import hdrs, web

from gateway.identity import DEFAULT_ACCOUNT, UNKNOWN
from gateway.openai.errors import error_answer, refusal
from gateway.record import Record
from gateway.reply import Reply
from gateway.rpc.call import Metadata
from trestle.errors import CallError, Reason
from trestle.logs import failure

if TYPE_CHECKING:
    from gateway.tracing import Trace

log = logging.getLogger("gateway")
TRACE: Final = ("traceparent", "tracestate")  # as trestle.traces says, which only who traces need import
_LONGEST_TRACE: Final = 512
JSON: Final = "application/json"
_IDS: Final = {"session": "x-session-id", "client": "x-client-id"}
_ID: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]{0,126}[\x21-\x7e])?")


class Exchange:
    """One request on its way. id: taken from `x-request-id` or made. named: what stands in its path in place of the
    endpoint's variables. identity: who asks; `UNKNOWN` until the key has been seen. agent: the name of the
    one that was asked for. ignored: parameters that it overrides. record: where its end is written down; None where
    that is not done. standing: headers that say how much more its key may use; None where nothing limits it. trace: its
    spans; None where there are none. path: the pattern of the endpoint that answers it; empty where none does."""

    __slots__ = (
        "_shared",
        "_since",
        "agent",
        "http",
        "id",
        "identity",
        "ignored",
        "named",
        "path",
        "record",
        "standing",
        "trace",
    )

    def __init__(self, http: web.BaseRequest, shared: Mapping[str, str]) -> None:
        """shared: headers of every answer to it."""
        self.http = http
        self.named: Mapping[str, str] = {}
        self.record: Record | None = None
        self.standing: Mapping[str, str] | None = None
        self.trace: Trace | None = None
        self.identity = UNKNOWN
        self.agent = ""
        self.path = ""
        self.ignored: list[str] = []
        self.id = "req_" + os.urandom(16).hex()
        self._shared = shared
        self._since = time.perf_counter()

    def take_id(self) -> None:
        """Takes the caller's id, if there is one. Raises `CallError` for one that is none."""
        given = self.token("x-request-id")
        if given is not None:
            self.id = given

    def headers(self) -> dict[str, str]:
        """The usual headers of an answer that begins now (WIRE 15)."""
        elapsed = int((time.perf_counter() - self._since) * 1000)
        headers = {"x-request-id": self.id, "openai-processing-ms": str(elapsed), "server": "trestle", **self._shared}
        if self.standing is not None:
            headers.update(self.standing)
        return headers

    @property
    def strict(self) -> bool:
        """Whether a parameter that is not honoured is an error."""
        return self.http.headers.get("x-trestle-strict", "").lower() == "true"

    def call_metadata(self) -> Metadata:
        """What travels to the worker beside the request. Raises `CallError` for an id that is none."""
        metadata: list[tuple[str, str | bytes]] = [("x-request-id", self.id)]
        if self.identity.account != DEFAULT_ACCOUNT:
            metadata.append(("x-account-id", self.identity.account))
        for name in ("x-client-id", "x-session-id"):
            value = self.token(name)
            if value is not None:
                metadata.append((name, value))
        if self.trace is None and "traceparent" in self.http.headers:
            metadata += [(name, value) for name in TRACE if (value := self.trace_header(name))]
        if self.strict:
            metadata.append(("x-trestle-strict", "true"))
        return tuple(metadata)

    def log_fields(self) -> dict[str, str]:
        """What every line of the log that is written for it says."""
        fields = {"request_id": self.id, "account": self.identity.account}
        if self.identity.key:
            fields["key"] = self.identity.key
        for field, name in _IDS.items():
            value = self.http.headers.get(name)
            if value is not None and _ID.fullmatch(value):
                fields[field] = value
        return fields

    def json(self, value: object, status: int = 200) -> Reply:
        """An answer of JSON."""
        return self.answer(msgspec.json.encode(value), status)

    def answer(
        self, body: bytes, status: int = 200, extra: Mapping[str, str] | None = None, content_type: str = JSON
    ) -> Reply:
        """An answer that is ready; extra: headers beside the usual ones."""
        headers = self.headers()
        if extra:
            headers.update(extra)
        headers["content-type"] = content_type
        if self.record is not None:
            self.record.status = status
        return Reply(self.http, headers, body, status)

    def fail(self, error: CallError, *, final: bool = False, extra: dict[str, str] | None = None) -> Reply:
        """The answer to a request that failed before the first byte of another one; final: as in `error_answer`."""
        said = error_answer(error, final=final)
        self.log_failure(error, said.status)
        return self.answer(said.body, said.status, {**said.headers, **(extra or {})})

    def log_failure(self, error: CallError, status: int) -> None:
        """Writes it down, and one line for the operator; the caller's own faults are not worth a warning."""
        if self.record is not None:
            self.record.error = error
        log.log(
            logging.WARNING if status >= 500 else logging.INFO,
            "the request failed",
            extra={**self.place(), "status": status, **failure(error), **self.log_fields()},
        )

    def place(self) -> dict[str, object]:
        """What it asked for, as fields of a line in the log: of its path the endpoint's pattern, as the rest is the
        client's own words."""
        method = self.http.method
        return {"method": method if method in hdrs.METH_ALL else None, "path": self.path or None}

    def refuse_path(self, methods: Iterable[str]) -> Reply:
        """The answer where nobody serves this path (methods is empty), or only with other methods."""
        path = self.http.path
        allowed = ", ".join(sorted(methods))
        if allowed:
            message = f"{path} does not take {self.http.method}."
            said = refusal(405, message, "method_not_allowed", {"allow": allowed})
        else:
            said = refusal(404, f"Unknown request URL: {self.http.method} {path}.", "unknown_url")
        return self.answer(said.body, said.status, said.headers)

    def trace_header(self, name: str) -> str:
        """A header's value that gRPC takes as metadata; empty for another one, or none. What is longer than W3C has to
        be handed on could fail the call, for which gRPC has 8 KB."""
        value = self.http.headers.get(name, "")
        return value if len(value) <= _LONGEST_TRACE and value.isascii() and value.isprintable() else ""

    def token(self, name: str) -> str | None:
        """The id that a header holds, None where it is not there. Raises `CallError` for one that is none."""
        value = self.http.headers.get(name)
        if value is not None and not _ID.fullmatch(value):
            raise CallError(
                Reason.INVALID_REQUEST,
                f"Invalid header '{name}': it must be 1 to 128 printable ASCII characters.",
                param=name,
                code="invalid_header",
            )
        return value


def too_large(limit: int) -> CallError:
    """A body beyond the limit, in bytes."""
    return CallError(Reason.REQUEST_TOO_LARGE, f"The body is larger than {limit} bytes.", code="request_too_large")

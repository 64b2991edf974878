"""Where a client's calls go, and what travels beside them: what the asyncio client and the other one have in common."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict
from urllib.parse import unquote

import grpc

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]
Pem: TypeAlias = str | os.PathLike[str] | bytes

TIMEOUT: Final = 600.0
RETRIES: Final = 2
_MAX_RETRIES: Final = 4  # gRPC's own limit is five attempts
SERVICE: Final = "trestle.v1.WorkerService"
_MAX_RESPONSE_BYTES: Final = 512 * 1024 * 1024
_MAX_REQUEST_BYTES: Final = 128 * 1024 * 1024  # what a worker takes, unless it is told otherwise
_IGNORED_PARAMS: Final = "x-trestle-ignored-params"
_LOOPBACK: Final = re.compile(
    r"(dns:(///)?)?(localhost|127\.[\d.]+|\[::1\])(:\d+)?|ipv4:127\.[\d.]+(:\d+)?(,127\.[\d.]+(:\d+)?)*|"
    r"ipv6:\[::1\](:\d+)?|unix(-abstract)?:.*"
)
_ID: Final = re.compile(r"[\x20-\x7e]{1,128}")
_IDS: Final[Mapping[str, str]] = {
    "request_id": "x-request-id",
    "session_id": "x-session-id",
    "client_id": "x-client-id",
    "account_id": "x-account-id",
}
_OPTIONS: Final[Mapping[str, int | str]] = {
    "grpc.max_receive_message_length": _MAX_RESPONSE_BYTES,
    "grpc.max_send_message_length": -1,
    "grpc.http2.bdp_probe": 0,  # its growing windows hold megabytes of a stream that nobody reads
    "grpc.per_rpc_retry_buffer_size": _MAX_REQUEST_BYTES,  # a request beyond it would not be tried again
    "grpc.dns_min_time_between_resolutions_ms": 10_000,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,  # of a process that hangs, whose kernel still answers
    # A worker that comes back is found within a second.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.min_reconnect_backoff_ms": 10_000,  # despite its name: the time that one attempt has
    "grpc.max_reconnect_backoff_ms": 1_000,
}


class CallOptions(TypedDict, total=False):
    """What every method of a client takes beside its request.

    timeout: seconds for the whole answer, retries included; None for no end; absent means the client's. request_id:
    goes on to the upstream and the logs. session_id, client_id, account_id: on whose behalf; a worker need take no
    notice of them unless a gateway says so. These four are printable ASCII, 128 characters at most. traceparent,
    tracestate: the W3C context of the caller's span. strict: a parameter that the family ignores is an error. metadata:
    more of it.
    """

    timeout: float | None
    request_id: str
    session_id: str
    client_id: str
    account_id: str
    traceparent: str
    tracestate: str
    strict: bool
    metadata: Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """How a worker is known, and who we are to it. PEM, as files' names or, as bytes, what stands in them.

    ca: who must have signed the worker's certificate; absent means an authority that gRPC knows. name: whom that
    certificate must be for; empty means the name in the target. certificate, key: our own, for workers that want to see
    one (mTLS).
    """

    ca: Pem | None = None
    name: str = ""
    certificate: Pem | None = None
    key: Pem | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises OSError for a file that cannot be read."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        return grpc.ssl_channel_credentials(_pem(self.ca), _pem(self.key), _pem(self.certificate))


def _pem(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else Path(pem).read_bytes()


class Link:
    """One worker, or its replicas, as the constructors of the clients describe it. credentials: None for plaintext.
    options: of the channel."""

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None,
        token: str | Callable[[], str],
        timeout: float | None,
        retries: int,
        metadata: Metadata,
        options: Mapping[str, int | str],
    ) -> None:
        if not 0 <= retries <= _MAX_RETRIES:
            raise ValueError(f"retries is from 0 to {_MAX_RETRIES}, not {retries}")
        if token and tls is None and not _LOOPBACK.fullmatch(target):
            raise ValueError(f"a token would go to {target} in plaintext: set tls")
        self.target = target
        self.credentials = None if tls is None else tls.credentials()
        named = {} if tls is None or not tls.name else {"grpc.ssl_target_name_override": tls.name}
        config = {"grpc.service_config": _service_config(retries)}
        self.options = tuple({**_OPTIONS, **named, **config, **options}.items())
        self._token = token
        self._timeout = timeout
        self._metadata = tuple(metadata)

    def call(self, options: CallOptions) -> dict[str, Any]:
        """Of a call with these options: what gRPC is to be told. Raises ValueError for an id that cannot travel."""
        sent: list[tuple[str, str | bytes]] = list(self._metadata)
        if self._token:
            token = self._token if isinstance(self._token, str) else self._token()
            sent.append(("authorization", f"Bearer {token}"))
        for option, name in _IDS.items():
            value: Any = options.get(option)
            if value is None:
                continue
            if not _ID.fullmatch(value):
                raise ValueError(f"{option} must be 1 to 128 printable ASCII characters")
            sent.append((name, value))
        if traceparent := options.get("traceparent"):
            sent.append(("traceparent", traceparent))
        if tracestate := options.get("tracestate"):
            sent.append(("tracestate", tracestate))
        if options.get("strict"):
            sent.append(("x-trestle-strict", "true"))
        sent.extend(options.get("metadata", ()))
        return {"timeout": options.get("timeout", self._timeout), "metadata": tuple(sent)}


def ignored_params(initial_metadata: Any) -> tuple[str, ...]:
    """The parameters that the family did not honour, by the answer's initial metadata."""
    for name, value in initial_metadata or ():
        if name == _IGNORED_PARAMS:
            return tuple(unquote(each) for each in value.split(","))
    return ()


def _service_config(retries: int) -> str:
    config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries:
        # Only until the answer's first message or metadata: gRPC then lets the call alone. A worker whose upstream is
        # unavailable has tried again by itself, and forbids it here.
        policy = {
            "maxAttempts": retries + 1,
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": [{"service": SERVICE}], "retryPolicy": policy}]
        # Of each failure a token, of each success a tenth of one back; below half of them nothing is tried again.
        config["retryThrottling"] = {"maxTokens": 20, "tokenRatio": 0.1}
    return json.dumps(config)

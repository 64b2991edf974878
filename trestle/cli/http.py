"""The command's own HTTP client: JSON to the gateway, an answer to read from."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_NOT_READY: Final = 503


class GatewayError(Exception):
    """The gateway did not answer, or answered with an error. The message is one line for the terminal. status: of HTTP,
    0 where there is none. body: of the answer."""

    def __init__(self, message: str, status: int = 0, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


def request(
    url: str, key: str, body: Any = None, timeout: float = 600.0, method: str | None = None
) -> HTTPResponse:
    """Sends `body` as JSON with POST, or GET without one, unless `method` says otherwise; the answer is 2xx. timeout:
    seconds of silence. Raises `GatewayError`."""
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise GatewayError(f"{url}: must begin with http:// or https://")
        # A proxy of the environment is for the world outside, and would not find this machine's loopback.
        proxies = urllib.request.ProxyHandler({} if parts.hostname in _LOOPBACK else None)
        opener = urllib.request.build_opener(proxies)
        answer: HTTPResponse = opener.open(
            urllib.request.Request(url, data, headers, method=method),  # noqa: S310
            timeout=timeout,
        )
    except urllib.error.HTTPError as error:
        with error:
            said = error.read()
        raise GatewayError(f"{error.code}: {_message(said)}", error.code, said) from None
    except urllib.error.URLError as error:
        why = f"{url}: {getattr(error.reason, 'strerror', None) or error.reason}"
        if isinstance(error.reason, ConnectionRefusedError):
            why += "; is the gateway running (trestle up), and does it listen there? --url names another address"
        raise GatewayError(why) from None
    except (OSError, HTTPException, ValueError) as error:
        raise GatewayError(f"{url}: {str(error) or type(error).__name__}") from None
    return answer


def models(base: str, key: str, timeout: float = 600.0) -> list[str]:
    """The ids of the models that the gateway at `base` offers. Raises `GatewayError`."""
    with request(f"{base}/v1/models", key, timeout=timeout) as answer:
        try:
            return [str(model["id"]) for model in json.load(answer)["data"]]
        except (ValueError, KeyError, TypeError, OSError, HTTPException):
            raise GatewayError(f"{base}/v1/models: the answer is not a list of models") from None


def workers(base: str, timeout: float) -> dict[str, bool]:
    """The workers of the gateway at `base`, and whether each serves now. Raises `GatewayError`."""
    try:
        known = _read(f"{base}/readyz", timeout)
    except GatewayError as error:
        known = error.body  # none serves, and it says so
        if error.status != _NOT_READY:
            raise
    try:
        return {str(name): bool(serves) for name, serves in json.loads(known)["workers"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise GatewayError(f"{base}/readyz: the answer names no workers") from None


def open_streams(base: str, timeout: float) -> int:
    """How many requests are being answered now. base: of a gateway's metrics. Raises `GatewayError`."""
    for line in _read(f"{base}/metrics", timeout).splitlines():
        name, _, number = line.partition(b" ")
        if name == b"trestle_open_streams":
            return int(float(number))
    raise GatewayError(f"{base}/metrics: are not a gateway's")


def _read(url: str, timeout: float) -> bytes:
    try:
        with request(url, "", timeout=timeout) as answer:
            return answer.read()
    except (OSError, HTTPException) as error:
        raise GatewayError(f"{url}: {str(error) or type(error).__name__}") from None


def _message(body: bytes) -> str:
    """The words of an OpenAI error object, or the body's beginning."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "no words"

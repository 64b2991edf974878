"""The command's own HTTP client: JSON to the gateway, an answer to read from."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPResponse
from typing import Any, Final

_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class GatewayError(Exception):
    """The gateway did not answer, or answered with an error. The message is one line for the terminal. status: of HTTP,
    0 where there is none."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


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
            raise GatewayError(f"{error.code}: {_message(error.read())}", error.code) from None
    except urllib.error.URLError as error:
        said = f"{url}: {getattr(error.reason, 'strerror', None) or error.reason}"
        if isinstance(error.reason, ConnectionRefusedError):
            said += "; is the gateway running (trestle up), and does it listen there? --url names another address"
        raise GatewayError(said) from None
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


def _message(body: bytes) -> str:
    """The words of an OpenAI error object, or the body's beginning."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "no words"

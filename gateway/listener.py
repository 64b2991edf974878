"""One address served over HTTP: aiohttp's server with two habits changed. What is not HTTP is told so in OpenAI's
words, and no header is logged."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from gateway.exchange import Exchange
from gateway.openai.errors import refusal
from trestle.config import ConfigError

log = logging.getLogger("gateway")
_TOO_LARGE: Final = 431


class Listener:
    """answer: what every request is answered with. max_header_bytes: the longest request line, and the longest header,
    taken. drain_timeout: seconds that open answers have at the end. Make it inside a running loop."""

    def __init__(
        self,
        answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        max_header_bytes: int,
        drain_timeout: float,
    ) -> None:
        # aiohttp's low-level server: its application, router and middleware would cost a request a twelfth of its time.
        server = _Server(
            answer,
            handler_cancellation=True,  # a request ends when its client is gone
            access_log=None,
            max_line_size=max_header_bytes,
            max_field_size=max_header_bytes,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=drain_timeout)

    async def listen(self, name: str, address: str, *, reuse_port: bool = False) -> str:
        """Serves from now on. name: of the setting that says the address. Returns the address as it turned out,
        `HOST:PORT`. Raises `ConfigError`."""
        await self._runner.setup()
        host, _, port = address.rpartition(":")
        site = web.TCPSite(self._runner, host.strip("[]"), int(port), reuse_port=reuse_port or None)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(f"{name}: cannot listen on {address}: {error.strerror}") from None
        return f"{host}:{self._runner.addresses[0][1]}"

    async def close(self) -> None:
        """No new connections; returns when the open answers have ended, or their time has."""
        await self._runner.cleanup()


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what never became a request. aiohttp's own quotes what it could not read, to the client and in
        the log, and that may be a key."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun")
        exchange = Exchange(request, {})
        log.info("request_id=%s not a request: %s", exchange.id, type(exc).__name__)
        if isinstance(exc, LineTooLong):
            said = refusal(_TOO_LARGE, "The request's line or a header of it is too long.", "header_too_large")
        elif status == web.HTTPInternalServerError.status_code:
            said = refusal(status, "The gateway failed.", "internal_error")
        else:
            said = refusal(status, "This is not an HTTP request that can be read.", "bad_request")
        response = exchange.answer(said.body, said.status, said.headers)
        response.force_close()
        return response

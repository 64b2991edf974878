"""Stands around every endpoint: from one of aiohttp's requests to the endpoint that answers it, and from what is raised
there to an answer. Keys are asked for here, and requests counted and recorded."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from aiohttp import hdrs, web

from gateway.auth import Keyring
from gateway.cors import Cors
from gateway.endpoints import Methods, Table
from gateway.exchange import Exchange
from gateway.identity import MANAGE, NOBODY
from gateway.record import Observer, Record
from gateway.reply import Reply
from gateway.settings import CorsSettings
from trestle.errors import CallError, Reason
from trestle.logs import serving

log = logging.getLogger("gateway")


class Places:
    """How many requests are served at once, of those that need a key: taken now, and at most."""

    __slots__ = ("most", "taken")

    def __init__(self, most: int = sys.maxsize) -> None:
        self.most = most
        self.taken = 0


class Edge:
    """Nothing leaves `answer` but an answer, or the cancellation of a request whose client is gone.

    places: shared with who else serves in this process. observers: told of the endpoints' requests that are recorded.
    stopping: once true, every answer asks its connection to close.
    """

    def __init__(
        self,
        table: Table,
        keyring: Keyring,
        cors: CorsSettings,
        places: Places,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.stopping = False
        self._open = 0
        self._emptied: asyncio.Event | None = None
        self._table = table
        self._places = places
        self._keyring = keyring
        self._cors = Cors(cors)
        self._observers = observers

    async def answer(self, request: web.BaseRequest) -> Reply:
        """The answer to one request."""
        shared = self._cors.headers(request.headers)
        if self.stopping:
            shared["connection"] = "close"
        exchange = Exchange(request, shared)
        serving.set(exchange)
        self._open += 1
        try:
            exchange.take_id()
            # yarl's path differs from the one sent where that was escaped without need, or came with a host.
            methods, exchange.named = self._table.at(request.raw_path.partition("?")[0])
            if not methods:
                methods, exchange.named = self._table.at(request.rel_url.raw_path)
            endpoint = methods.get(request.method)
            if endpoint is None:
                return self._unmatched(exchange, methods)
            exchange.path = endpoint.path
            if not endpoint.guarded:
                return await endpoint.handler(exchange)
            given = exchange.http.headers
            exchange.identity = await self._keyring.admit(given.get(hdrs.AUTHORIZATION), given.get("x-api-key"))
            if endpoint.kind:
                self._begin(exchange, endpoint.kind)
            self._demand(exchange, endpoint.scope)
            self._places.taken += 1
            try:
                return await endpoint.handler(exchange)
            finally:
                self._places.taken -= 1
        except CallError as error:
            return exchange.fail(error)
        except web.RequestPayloadError:
            reply = exchange.fail(CallError(Reason.INVALID_REQUEST, "The body cannot be read.", code="bad_request"))
            reply.force_close()  # where the next request would begin, nobody knows
            return reply
        except (asyncio.CancelledError, ConnectionError) as error:
            if exchange.record is not None:
                exchange.record.cancelled = True
                exchange.record.stalled = getattr(request.protocol, "stalled", False)
            if isinstance(error, asyncio.CancelledError):
                raise
            # The client is gone, and nobody is left to answer: what is returned is not sent, and aiohttp, which
            # takes whatever is raised for a failure of ours, has nothing to log.
            if request.transport is not None:
                request.transport.abort()
            return Reply(request, {}, status=499)
        except Exception:
            log.exception("the gateway failed", extra=exchange.place())
            return exchange.fail(CallError(Reason.INTERNAL, "The gateway failed."))
        finally:
            serving.set(None)
            self._open -= 1
            if self._emptied is not None and not self._open:
                self._emptied.set()
            if exchange.record is not None:
                self._end(exchange.record)
                exchange.record = None  # the two hold each other, and what they hold may be large

    async def emptied(self) -> None:
        """Returns once nobody is being answered here; for who sends nobody here any more."""
        if self._open:
            self._emptied = asyncio.Event()
            await self._emptied.wait()

    def _demand(self, exchange: Exchange, scope: str) -> None:
        """Raises `CallError` for who may not come in, or not now."""
        identity = exchange.identity
        if scope:
            identity.demand(scope)
        if scope == MANAGE and identity is NOBODY and hdrs.ORIGIN in exchange.http.headers:
            # Any page that a browser here has open could send it; what is managed stays.
            raise CallError(Reason.PERMISSION_DENIED, "A page in a browser needs an API key for this.")
        if self._places.taken >= self._places.most:
            raise CallError(
                Reason.OVERLOADED,
                "The gateway serves as many requests as it may; try again shortly.",
                code="overloaded",
                retry_after=1.0,
            )

    def _begin(self, exchange: Exchange, kind: str) -> None:
        record = exchange.record = Record(exchange, kind)
        for observer in self._observers:
            observer.began(record)

    def _end(self, record: Record) -> None:
        record.end()
        if record.watch is not None:
            record.watch.end(record)
        for observer in self._observers:
            observer.ended(record)

    def _unmatched(self, exchange: Exchange, methods: Methods) -> Reply:
        """Answers what no endpoint is there for: preflights, wrong paths and methods."""
        asked = exchange.http.headers
        if exchange.http.method != hdrs.METH_OPTIONS or "access-control-request-method" not in asked:
            return exchange.refuse_path(methods)
        headers = exchange.headers()
        if "access-control-allow-origin" in headers:
            headers.update(self._cors.preflight(asked, methods))
        return Reply(exchange.http, headers, status=204)

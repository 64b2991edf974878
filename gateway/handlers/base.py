"""The skeleton of every endpoint that calls a worker: body, route, call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from aiohttp import HttpVersion11, hdrs, web

from gateway.agents import Preset, apply
from gateway.catalogue import Catalogue
from gateway.coding import unpacker
from gateway.deadline import asked_timeout
from gateway.exchange import Exchange, too_large
from gateway.limits.limiter import Limiter
from gateway.namespace import NOTHING_ADDED, Namespace
from gateway.openai.errors import UNFINISHED, model_not_found
from gateway.openai.fields import invalid
from gateway.routed import Network, RoutedCall
from gateway.routing import Route
from gateway.rpc.method import Method
from gateway.sessions import Sessions, SessionWatch
from gateway.workers import Worker
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

_MOST_IGNORED: Final = 20
_PATIENCE: Final = 30.0
_WHOLE: Final = 60.0
Namespaces = Callable[[str], Namespace]
"""An account's id -> what it added."""


class Ask(Protocol):
    """A decoded body. model: the public name."""

    @property
    def model(self) -> str: ...
    @property
    def request(self) -> Any: ...


A = TypeVar("A", bound=Ask)


class Bridge:
    """From an exchange to the call it becomes. namespaces: what each account added. sessions: who is told what
    happens in them. timeout, max_timeout: seconds a request may take in all, and may ask for. max_body_bytes: the
    largest body taken; body_timeout: seconds for which nothing of it may come, while all of it has `timeout`.
    max_tools: how many tools one may offer."""

    def __init__(
        self,
        catalogue: Catalogue,
        namespaces: Namespaces,
        network: Network,
        sessions: Sessions,
        limiter: Limiter,
        *,
        timeout: float,
        max_timeout: float,
        max_body_bytes: int,
        body_timeout: float,
        max_tools: int,
    ) -> None:
        self._catalogue = catalogue
        self._namespaces = namespaces
        self._network = network
        self._sessions = sessions
        self._limiter = limiter
        self._timeout = timeout
        self._max_timeout = max_timeout
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._max_tools = max_tools

    async def ask(self, exchange: Exchange, decode: Callable[[bytes], A], *, chat: bool = False) -> A:
        """The decoded body, which may be asked for: of a chat, as an agent and a model's defaults make it. Raises
        `CallError` for a body that is none, or a model that the key may not use."""
        body = await read_body(exchange, self._max_body_bytes, self._body_timeout, self._timeout)
        ask = decode(body)
        if exchange.record is not None:
            exchange.record.model = ask.model
        if chat:
            self._count_tools(ask.request)
        exchange.identity.demand_model(ask.model)
        added = self._namespaces(exchange.identity.account)
        if added is NOTHING_ADDED:
            return ask
        presets: list[Preset] = []
        model = ask.model
        if (agent := added.agents.get(model)) is not None:
            if not chat:
                raise invalid("model", f"Invalid value for 'model': '{model}' is an agent, which is for chats only.")
            exchange.agent = model
            presets.append(agent.preset)
            model = agent.preset.model
        own = added.models.get(model.partition("?")[0])
        if chat and own is not None and own.preset is not None:
            presets.append(own.preset)
        if not presets:
            return ask
        for preset in presets:
            body, ignored = apply(preset, body, datetime.now(UTC))
            exchange.ignored += ignored
        if exchange.ignored and exchange.strict:
            raise CallError(
                Reason.UNSUPPORTED,
                f"The agent '{exchange.agent}' does not honour {', '.join(exchange.ignored)}.",
                param=exchange.ignored[0],
                code="unsupported_parameter",
            )
        ask = decode(body)
        self._count_tools(ask.request)
        return ask

    def _count_tools(self, request: chat_pb2.ChatRequest) -> None:
        for name, offered in (("tools", len(request.tools)), ("functions", len(request.functions))):
            if offered > self._max_tools:
                raise CallError(
                    Reason.INVALID_REQUEST,
                    f"Invalid '{name}': {offered} are more than the {self._max_tools} that a request may offer.",
                    param=name,
                    code="array_above_max_length",
                )

    async def call(
        self, exchange: Exchange, model: str, request: Any, method: Callable[[Worker], Method], *, single: bool
    ) -> RoutedCall:
        """The call over the model's route, noted in the request's record; method, single: as in `RoutedCall`. Raises
        `CallError` for a model nobody has, a timeout that cannot be, or more than the key may use now."""
        route = await self._resolve(exchange.identity.account, model)
        holders = self._limiter.holders(exchange.identity)
        if holders:
            await self._limiter.admit(exchange, holders, request)
        timeout = asked_timeout(exchange.http.headers, self._max_timeout) or route.timeout or self._timeout
        metadata = exchange.call_metadata()
        call = RoutedCall(
            self._network, route, method, request, timeout, metadata, single=single, trace=exchange.trace
        )
        record = exchange.record
        if record is not None:
            record.call, record.request = call, request
            if "x-session-id" in exchange.http.headers:
                record.watch = self._watch(exchange)
                record.watch.started(record)
        call.ignored = [quote(name, safe="[]") for name in exchange.ignored[:_MOST_IGNORED]]
        return call

    def _watch(self, exchange: Exchange) -> SessionWatch:
        session = exchange.token("x-session-id") or ""
        return SessionWatch(self._sessions, exchange, session, exchange.token("x-client-id") or "")

    async def _resolve(self, account: str, model: str) -> Route:
        """The account's own models first, then the shared ones; an agent is none of them."""
        added = self._namespaces(account).models.get(model.partition("?")[0])
        if added is None:
            return await self._catalogue.resolve(model)
        if added.record.worker not in self._network.workers:
            raise model_not_found(model)  # the configuration has lost it since
        return await self._catalogue.resolve_added(added.route, model)


async def read_body(exchange: Exchange, limit: int, patience: float = _PATIENCE, whole: float = _WHOLE) -> bytes:
    """The whole body, once. limit: bytes; patience: seconds for which nothing of it may come; whole: seconds that all
    of it has. Raises `CallError`: REQUEST_TOO_LARGE, unread where the request says its size; INVALID_REQUEST for one
    that does not come in time (408) or cannot be unpacked (415 where nobody here knows how); `web.RequestPayloadError`
    for one that breaks on the way."""
    size = exchange.http.content_length
    if size is not None and size > limit:
        raise too_large(limit)
    packed = unpacker(exchange.http.headers.get(hdrs.CONTENT_ENCODING))
    if hdrs.EXPECT in exchange.http.headers:
        await _expected(exchange.http)
    # Not the request's own `read`, which keeps what it has read: a connection keeps its request until the next one.
    content = exchange.http.content
    first = b""
    rest: BytesIO | None = None
    length = 0
    end = 0.0
    while True:
        if content.is_eof():
            piece = await content.readany()
        else:
            now = asyncio.get_running_loop().time()
            end = end or now + whole
            try:
                async with asyncio.timeout_at(min(now + patience, end)):
                    piece = await content.readany()
            except TimeoutError:
                raise _unfinished() from None
        if not piece:
            if packed is not None:
                packed.end()
            return first if rest is None else rest.getvalue()
        if packed is not None:
            piece = packed.feed(piece, limit + 1 - length)
        length += len(piece)
        if length > limit:
            raise too_large(limit)
        if not first:
            first = piece
            continue
        if rest is None:
            # Into one block: hundreds of pieces of a large body would leave holes that the system does not get back.
            # Its bytes are that block itself, where a bytearray's were one copy more.
            rest = BytesIO()
            rest.write(first)
        rest.write(piece)


def _unfinished() -> CallError:
    return CallError(Reason.INVALID_REQUEST, "The request's body did not come in time.", code=UNFINISHED)


async def _expected(http: web.BaseRequest) -> None:
    """The client waits for a word before it sends the body (RFC 9110, 10.1.1). Raises `CallError` for another wish."""
    expects = http.headers[hdrs.EXPECT]
    if expects.lower() != "100-continue":
        raise CallError(Reason.INVALID_REQUEST, "The only expectation there is: 100-continue.", param="expect")
    if http.version >= HttpVersion11:
        await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

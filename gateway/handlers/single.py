"""Endpoints that answer in one piece only: `POST /v1/embeddings`, `POST /v1/moderations`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from gateway.exchange import Exchange
from gateway.handlers.base import Bridge
from gateway.openai.embeddings import decode_embed, encode_embeddings
from gateway.openai.moderations import decode_moderation, encode_moderation
from gateway.reply import Reply
from gateway.rpc.method import Method
from gateway.workers import Worker
from trestle.errors import CallError
from trestle.v1 import chat_pb2


class Ask(Protocol):
    """A decoded body. model: the public name."""

    @property
    def model(self) -> str: ...
    @property
    def request(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint speaks: its codecs, and the worker's method behind it."""

    decode: Callable[[bytes], Ask]
    method: Callable[[Worker], Method]
    encode: Callable[[Any, Any], bytes]
    usage: Callable[[Any], chat_pb2.Usage | None]


EMBEDDINGS = Dialect(decode_embed, attrgetter("embed"), encode_embeddings, attrgetter("usage"))
MODERATIONS = Dialect(decode_moderation, attrgetter("moderate"), encode_moderation, lambda _: None)


class SingleHandler:
    """One endpoint."""

    def __init__(self, dialect: Dialect, bridge: Bridge) -> None:
        self._dialect = dialect
        self._bridge = bridge

    async def create(self, exchange: Exchange) -> Reply:
        ask = await self._bridge.ask(exchange, self._dialect.decode)
        call = await self._bridge.call(exchange, ask.model, ask.request, self._dialect.method, single=True)
        try:
            response = await call.single()
            if exchange.record is not None:
                exchange.record.usage = usage = self._dialect.usage(response)
                if exchange.record.watch is not None and usage is not None:
                    exchange.record.watch.used(usage)
            return exchange.answer(self._dialect.encode(response, ask), extra=await call.headers())
        except CallError as error:
            return exchange.fail(error, final=call.spent, extra=call.attempt_headers())
        finally:
            call.close()

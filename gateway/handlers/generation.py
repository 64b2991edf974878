"""Endpoints that answer as a stream or in one piece: `POST /v1/chat/completions`, `POST /v1/completions`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Protocol

from gateway.exchange import Exchange
from gateway.handlers.base import Bridge
from gateway.openai.completion import ChatFold
from gateway.openai.errors import http_status
from gateway.openai.request import decode_chat
from gateway.openai.stream import MANY, ChatStreamEncoder
from gateway.openai.text import TextFold, TextStreamEncoder, decode_text
from gateway.record import Answer
from gateway.reply import Reply
from gateway.routed import RoutedCall, ended_early
from gateway.rpc.method import Method
from gateway.sessions import SessionWatch
from gateway.sse import SseAnswer
from gateway.workers import Worker
from trestle.errors import CallError, Reason

log = logging.getLogger("gateway")


class Ask(Protocol):
    """A decoded body. model: the public name. include_usage: whether a stream ends with a usage event."""

    @property
    def model(self) -> str: ...
    @property
    def request(self) -> Any: ...
    @property
    def stream(self) -> bool: ...
    @property
    def include_usage(self) -> bool: ...


class StreamEncoder(Answer, Protocol):
    """Chunks to events; see `gateway.openai.stream.ChatStreamEncoder`."""

    @property
    def whole(self) -> bool: ...
    def feed(self, chunks: Sequence[Any], size: int, /) -> bytes: ...
    def close(self) -> bytes: ...
    def fail(self, error: CallError) -> bytes: ...


class Fold(Answer, Protocol):
    """Chunks to the answer in one piece; see `gateway.openai.completion.ChatFold`."""

    @property
    def whole(self) -> bool: ...
    def feed(self, chunks: Iterable[Any]) -> None: ...
    def encode(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one endpoint speaks: its codecs, and the worker's method behind it."""

    decode: Callable[[bytes], Ask]
    method: Callable[[Worker], Method]
    encoder: Callable[[bool], StreamEncoder]
    fold: Callable[[], Fold]


CHAT = Dialect(decode_chat, attrgetter("chat"), ChatStreamEncoder, ChatFold)
TEXT = Dialect(decode_text, attrgetter("complete"), TextStreamEncoder, TextFold)


class GenerationHandler:
    """One endpoint. keep_alive: as in `SseAnswer`."""

    def __init__(self, dialect: Dialect, bridge: Bridge, keep_alive: float) -> None:
        self._dialect = dialect
        self._bridge = bridge
        self._keep_alive = keep_alive

    async def create(self, exchange: Exchange) -> Reply:
        ask = await self._bridge.ask(exchange, self._dialect.decode, chat=self._dialect is CHAT)
        if exchange.record is not None:
            exchange.record.stream = ask.stream
        call = await self._bridge.call(
            exchange, ask.model, ask.request, self._dialect.method, single=not ask.stream
        )
        try:
            return await (self._stream if ask.stream else self._whole)(exchange, ask, call)
        finally:
            call.close()

    async def _whole(self, exchange: Exchange, ask: Ask, call: RoutedCall) -> Reply:
        """A fold of the same chunks, so that the two forms can never differ."""
        while True:
            try:
                response = await call.single()
                answer = self._dialect.fold()
                answer.feed(response.chunks)
                if exchange.record is not None:
                    exchange.record.answer = answer
                    if exchange.record.watch is not None:
                        exchange.record.watch.feed(response.chunks)
                if answer.whole:
                    return exchange.answer(answer.encode(), extra=await call.headers())
                error = ended_early()
            except CallError as failed:
                return exchange.fail(failed, final=call.spent, extra=call.attempt_headers())
            if not call.move_on(error):
                return exchange.fail(error, final=call.spent, extra=call.attempt_headers())

    async def _stream(self, exchange: Exchange, ask: Ask, call: RoutedCall) -> Reply:
        answer = SseAnswer(exchange, self._keep_alive, call.headers)
        record = exchange.record
        alone = _one_choice(ask.request)
        try:
            while True:
                encoder = self._dialect.encoder(ask.include_usage)
                way = _Way(encoder, answer, alone, None if record is None else record.watch)
                if record is not None:
                    record.answer = encoder
                try:
                    while not await call.pass_to(way.take):
                        await answer.go_on()
                    if not encoder.whole:
                        raise ended_early()
                    return await answer.end(way.held + encoder.close())
                except CallError as error:
                    failure = error
                except ConnectionError:
                    raise  # the client is gone
                except Exception:
                    log.exception("the answer failed")
                    failure = CallError(Reason.INTERNAL, "The gateway failed.")
                if not answer.sent and not way.held and call.move_on(failure):
                    continue
                if not way.held and not answer.begun:
                    return exchange.fail(failure, final=call.spent, extra=call.attempt_headers())
                exchange.log_failure(failure, http_status(failure))
                return await answer.end(way.held + encoder.fail(failure))
        finally:
            answer.close()


class _Way:
    """From one target's chunks to the client's events. alone: as `_one_choice` says. held: the last events; the end
    follows at once, and leaves with them."""

    __slots__ = ("_alone", "_answer", "_encoder", "_watch", "held")

    def __init__(self, encoder: StreamEncoder, answer: SseAnswer, alone: bool, watch: SessionWatch | None) -> None:
        self._encoder = encoder
        self._answer = answer
        self._alone = alone
        self._watch = watch
        self.held = b""

    def take(self, response: Any) -> bool:
        """Sends what it says; returns whether more may follow at once."""
        chunks = response.chunks
        if self._watch is not None:
            self._watch.feed(chunks)
        encoder = self._encoder
        events = encoder.feed(chunks, response.ByteSize() if len(chunks) >= MANY else 0)
        if self.held:
            events, self.held = self.held + events, b""
        if self._alone and encoder.whole:
            self.held = events
            return True
        return not events or self._answer.put(events)


def _one_choice(request: Any) -> bool:
    """Whether the answer has one choice alone, so that its finish is the answer's."""
    return request.sampling.n <= 1 and len(getattr(request, "prompts", ())) <= 1

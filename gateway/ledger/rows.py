"""A request's record as a row of the ledger. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from gateway.attempt import Attempt
from gateway.prices import Prices
from gateway.record import Outcome, Record
from trestle.v1 import chat_pb2


class Row(msgspec.Struct, gc=False):
    """One request. id: ours, unique. at: when it began, Unix milliseconds. key: its id, or its name in the
    configuration. model: as it was asked for; worker, upstream, target_model: who answered, or was asked last.
    attempts: JSON, one object for each target that was asked. tokens: of all attempts; estimated: where one of them is
    a guess. cost: in millionths. latency_ms, first_token_ms: from the request's beginning; the latter zero where none
    was sent.
    """

    id: str
    at: int
    account: str
    key: str
    agent: str
    kind: str
    model: str
    stream: bool
    worker: str
    upstream: str
    target_model: str
    attempts: str
    outcome: str
    status: int
    reason: str
    finish: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    estimated: bool
    cost: int
    latency_ms: int
    first_token_ms: int
    request: str
    session: str
    client: str
    user: str


_NOTHING: Final = chat_pb2.Usage()
_MOST_CHARS: Final = 128
_MOST_TOKENS: Final = 10**12
"""What an upstream may claim that one request took: sums of rows stay within the databases' 64 bits."""
_MOST_COST: Final = 10**15


def row_of(record: Record, prices: Prices) -> Row:
    """The row of a request that has ended."""
    exchange, identity = record.exchange, record.exchange.identity
    given = exchange.http.headers
    used = record.uses()
    total = record.total() or _NOTHING
    outcome = record.outcome
    cost = sum(prices.cost(attempt.target, usage) for attempt, usage in used if usage is not None)
    last = record.target.target if record.target is not None else None
    at = int(record.at * 1000)
    return Row(
        id=f"{at:012x}{os.urandom(10).hex()}",
        at=at,
        account=identity.account,
        key=_text(identity.key),
        agent=_text(exchange.agent),
        kind=record.kind,
        model=_text(record.model, 256),
        stream=record.stream,
        worker="" if last is None else _text(last.worker),
        upstream="" if last is None else _text(last.upstream),
        target_model="" if last is None else _text(last.model, 256),
        attempts=_attempts(used),
        outcome=outcome.value,
        status=record.status,
        reason="" if record.error is None or outcome is Outcome.DONE else record.error.label,
        finish=record.finish,
        input_tokens=min(total.input_tokens, _MOST_TOKENS),
        output_tokens=min(total.output_tokens, _MOST_TOKENS),
        cache_read_tokens=min(total.cache_read_tokens, _MOST_TOKENS),
        cache_write_tokens=min(total.cache_write_tokens, _MOST_TOKENS),
        reasoning_tokens=min(total.reasoning_tokens, _MOST_TOKENS),
        audio_tokens=min(total.input_audio_tokens + total.output_audio_tokens, _MOST_TOKENS),
        estimated=total.estimated,
        cost=min(cost, _MOST_COST),
        latency_ms=int((record.ended - record.began) * 1000),
        first_token_ms=int((record.first - record.began) * 1000) if record.first else 0,
        request=exchange.id,
        session=_text(given.get("x-session-id", "")),
        client=_text(given.get("x-client-id", "")),
        user=_text(_user(record.request)),
    )


def _text(text: str, most: int = _MOST_CHARS) -> str:
    """As much of it as a column takes, and nothing that a database does not: a request that was refused for its ids
    has them here, whatever they are."""
    text = text[:most]
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text


def _attempts(used: Sequence[tuple[Attempt, chat_pb2.Usage | None]]) -> str:
    told: list[dict[str, Any]] = []
    for attempt, usage in used:
        target = attempt.target
        one: dict[str, Any] = {"worker": target.worker, "upstream": target.upstream, "model": target.model}
        if attempt.error is not None:
            one["reason"] = attempt.error.label
        if attempt.lost:
            one["lost"] = True
        if attempt.tries > 1:
            one["tries"] = attempt.tries
        if usage is not None:
            one["input_tokens"], one["output_tokens"] = usage.input_tokens, usage.output_tokens
            if usage.estimated:
                one["estimated"] = True
        told.append(one)
    return msgspec.json.encode(told).decode()


def _user(request: object) -> str:
    """The caller's own id of its user, as the request says."""
    return getattr(request, "safety_identifier", "") or getattr(request, "user", "")

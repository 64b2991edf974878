"""A request's record as a row of the ledger. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.prices import Prices
from gateway.record import Outcome, Record
from gateway.routed import Attempt
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


_NOTHING = chat_pb2.Usage()
_MOST = 128


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
        key=identity.key,
        agent=exchange.agent,
        kind=record.kind,
        model=record.model[:256],
        stream=record.stream,
        worker="" if last is None else last.worker,
        upstream="" if last is None else last.upstream,
        target_model="" if last is None else last.model[:256],
        attempts=_attempts(used),
        outcome=outcome.value,
        status=record.status,
        reason="" if record.error is None or outcome is Outcome.DONE else record.error.reason.value,
        finish=record.finish,
        input_tokens=total.input_tokens,
        output_tokens=total.output_tokens,
        cache_read_tokens=total.cache_read_tokens,
        cache_write_tokens=total.cache_write_tokens,
        reasoning_tokens=total.reasoning_tokens,
        audio_tokens=total.input_audio_tokens + total.output_audio_tokens,
        estimated=total.estimated,
        cost=cost,
        latency_ms=int((record.ended - record.began) * 1000),
        first_token_ms=int((record.first - record.began) * 1000) if record.first else 0,
        request=exchange.id,
        session=given.get("x-session-id", "")[:_MOST],
        client=given.get("x-client-id", "")[:_MOST],
        user=_user(record.request)[:_MOST],
    )


def _attempts(used: Sequence[tuple[Attempt, chat_pb2.Usage | None]]) -> str:
    told: list[dict[str, Any]] = []
    for attempt, usage in used:
        target = attempt.target
        one: dict[str, Any] = {"worker": target.worker, "upstream": target.upstream, "model": target.model}
        if attempt.error is not None:
            one["reason"] = attempt.error.reason.value
        if attempt.lost:
            one["lost"] = True
        if usage is not None:
            one["input_tokens"], one["output_tokens"] = usage.input_tokens, usage.output_tokens
            if usage.estimated:
                one["estimated"] = True
        told.append(one)
    return msgspec.json.encode(told).decode()


def _user(request: object) -> str:
    """The caller's own id of its user, as the request says."""
    return getattr(request, "safety_identifier", "") or getattr(request, "user", "")

"""What becomes of a request's record in its row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from gateway.identity import Identity
from gateway.ledger.rows import Row, row_of
from gateway.prices import Prices
from gateway.record import Record
from gateway.settings import PriceSettings, Target
from trestle.errors import CallError, Reason
from trestle.v1 import chat_pb2

TARGETS = [Target(worker="w", upstream=name, model="m") for name in ("first", "second")]
PRICES = Prices(
    [
        PriceSettings(upstream="first", model="m", input=1, output=2),
        PriceSettings(upstream="second", model="m", input=10, output=20),
    ]
)


@dataclass
class Http:
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asks:
    """As much of `gateway.exchange.Exchange` as matters here."""

    http: Http = field(default_factory=Http)
    identity: Identity = field(default_factory=lambda: Identity("acct_1", "key_1"))
    agent: str = ""
    id: str = "req_1"


@dataclass
class Tried:
    """As much of `gateway.routed.Attempt` as matters here."""

    target: Target
    error: CallError | None = None
    usage: chat_pb2.Usage | None = None
    began: bool = False
    lost: bool = False
    tries: int = 1


@dataclass
class Call:
    attempts: list[Tried]
    current: Tried


@dataclass
class Said:
    usage: chat_pb2.Usage | None
    chars: int = 0
    finish: str = "stop"
    model: str = ""


def row(*attempts: Tried, answer: Said | None = None, **headers: str) -> Row:
    made = Record(cast(Any, Asks(Http({name.replace("_", "-"): value for name, value in headers.items()}))), "chat")
    made.model = "public"
    made.request = chat_pb2.ChatRequest(user="u")
    made.answer = answer
    if attempts:
        made.call = cast(Any, Call(list(attempts), attempts[-1]))
    made.end()
    return row_of(made, PRICES)


def test_every_attempt_is_told_and_paid_for_at_its_own_price() -> None:
    failed = Tried(TARGETS[0], CallError(Reason.UPSTREAM_TRUNCATED, "cut", usage=chat_pb2.Usage(input_tokens=5)))
    good = Tried(TARGETS[1], began=True, tries=3)
    made = row(failed, good, answer=Said(chat_pb2.Usage(input_tokens=5, output_tokens=3)))
    assert (made.upstream, made.outcome, made.finish) == ("second", "done", "stop")
    assert (made.input_tokens, made.output_tokens, made.cost) == (10, 3, 5 * 1 + 5 * 10 + 3 * 20)
    told = msgspec.json.decode(made.attempts)
    assert [(each["upstream"], each.get("reason"), each.get("tries")) for each in told] == [
        ("first", "UPSTREAM_TRUNCATED", None),
        ("second", None, 3),
    ]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s" * 5000, "s" * 128),
        ("a\udcff", "a?"),  # a byte of a header that is no text
        ("a\0b", "a\ufffdb"),  # PostgreSQL keeps everything but this
        ("é" * 5000, "é" * 128),
    ],
)
def test_what_callers_call_themselves_fits_in_every_database(given: str, kept: str) -> None:
    made = row(x_session_id=given, x_client_id=given)
    assert (made.session, made.client) == (kept, kept)
    assert msgspec.json.decode(msgspec.json.encode(made), type=Row) == made


def test_what_an_upstream_claims_beyond_measure_can_still_be_summed_up() -> None:
    usage = chat_pb2.Usage(input_tokens=2**63, output_tokens=2**64 - 1, input_audio_tokens=2**64 - 1)
    made = row(Tried(TARGETS[1], began=True), answer=Said(usage))
    assert max(made.input_tokens, made.output_tokens, made.audio_tokens) == 10**12
    assert made.cost == 10**15
    assert 1000 * made.cost < 2**63


def test_no_two_rows_have_one_id() -> None:
    assert len({row().id for _ in range(1000)}) == 1000

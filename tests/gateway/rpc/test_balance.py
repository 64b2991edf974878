"""Who is asked of several, and what a load report makes of it."""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.rpc.balance import ByLoad, BySession, InTurn, weight_of
from worker.load import report


@dataclass
class One:
    """A replica."""

    key: bytes
    weight: float = 0.0


def ones(count: int) -> list[One]:
    return [One(b"10.0.0.%d:50051" % i) for i in range(count)]


def test_in_turn_also_when_some_come_and_go() -> None:
    policy, all_ = InTurn(), ones(4)
    assert [policy(all_, ()) for _ in range(8)] == all_ * 2
    assert {policy(all_[:2], ()).key for _ in range(2)} == {one.key for one in all_[:2]}
    assert {policy(all_, ()).key for _ in range(4)} == {one.key for one in all_}


def home(replicas: list[One], session: str, policy: BySession | None = None) -> bytes:
    return (policy or BySession())(replicas, (("x-request-id", "r"), ("x-session-id", session))).key


def test_a_session_has_one_home_for_every_gateway_in_whatever_order() -> None:
    replicas, policy = ones(5), BySession()
    for i in range(50):
        orders = (replicas, replicas[::-1], replicas[2:] + replicas[:2])
        assert len({home(order, f"s{i}", policy) for order in orders}) == 1
        assert home(replicas, f"s{i}") == home(replicas, f"s{i}", policy)
    assert home(replicas, "") == home(replicas, "")


@given(some.integers(2, 9), some.data())
def test_only_those_move_whose_replica_came_or_went(count: int, data: some.DataObject) -> None:
    replicas = ones(count)
    gone = data.draw(some.sampled_from(replicas))
    left = [one for one in replicas if one is not gone]
    for i in range(30):
        before, after = home(replicas, f"s{i}"), home(left, f"s{i}")
        assert before == after or before == gone.key


def test_sessions_are_spread_and_others_go_in_turn() -> None:
    replicas, policy = ones(4), BySession()
    homes = Counter(home(replicas, f"session {i}") for i in range(4_000))
    assert all(800 < count < 1_200 for count in homes.values()), homes
    assert [policy(replicas, (("x-request-id", "r"),)) for _ in range(8)] == replicas * 2


@given(some.lists(some.floats(1e-3, 1e3), min_size=1, max_size=6))
def test_each_has_its_share_at_any_time(weights: list[float]) -> None:
    replicas = [One(b"%d" % i, weight) for i, weight in enumerate(weights)]
    policy, rounds = ByLoad(), 200
    asked = Counter(policy(replicas, ()).key for _ in range(rounds))
    for one in replicas:
        share = rounds * one.weight / sum(weights)
        assert abs(asked[one.key] - share) <= len(weights), (asked, weights)


def test_who_does_not_tell_counts_as_the_mean() -> None:
    replicas = [One(b"a", 1.0), One(b"b", 3.0), One(b"c")]
    policy = ByLoad()
    assert Counter(policy(replicas, ()).key for _ in range(60)) == {b"a": 10, b"b": 30, b"c": 20}
    silent = ones(3)
    assert set(Counter(policy(silent, ()).key for _ in range(30)).values()) == {10}


def test_shares_are_spread_and_change_at_once() -> None:
    replicas, policy = [One(b"a", 1.0), One(b"b", 1.0)], ByLoad()
    order = [policy(replicas, ()).key for _ in range(10)]
    assert all(one != other for one, other in pairwise(order))
    replicas[0].weight = 9.0
    assert Counter(policy(replicas, ()).key for _ in range(20))[b"a"] >= 17
    # One that was away for long has saved up nothing.
    for _ in range(100):
        policy(replicas[:1], ())
    assert Counter(policy(replicas, ()).key for _ in range(20))[b"b"] <= 3


def double(number: int, value: float) -> bytes:
    return struct.pack("<Bd", number << 3 | 1, value)


CPU, MEMORY, RATE, ERRORS, UTILIZATION = 1, 2, 6, 7, 9


@pytest.mark.parametrize(
    ("told", "weight"),
    [
        (b"", 0.0),
        (double(RATE, 10), 0.0),
        (double(UTILIZATION, 0.5), 0.0),
        (double(RATE, 10) + double(UTILIZATION, 0.5), 20.0),
        (double(RATE, 10) + double(CPU, 0.25), 40.0),
        (double(RATE, 10) + double(CPU, 0.25) + double(UTILIZATION, 0.5) + double(MEMORY, 0.9), 20.0),
        (double(RATE, 10) + double(UTILIZATION, 0.5) + double(ERRORS, 5), 10.0),
        (double(RATE, 10) + double(UTILIZATION, -1) + double(CPU, 0.25), 40.0),
        (double(RATE, -10) + double(UTILIZATION, 0.5), 0.0),
        (double(RATE, math.nan) + double(UTILIZATION, 0.5), 0.0),
        (double(RATE, math.inf) + double(UTILIZATION, 0.5), 0.0),
        (double(RATE, 10) + double(UTILIZATION, math.nan), 0.0),
        (double(RATE, 10) + double(UTILIZATION, math.inf), 0.0),
        # Fields that say nothing here: a varint, a string, a float.
        (b"\x18\x96\x01" + b"\x22\x03abc" + b"\x55abcd" + double(RATE, 10) + double(UTILIZATION, 0.5), 20.0),
        (report(3, 1.0), 0.2),
    ],
)
def test_what_a_report_says(told: bytes, weight: float) -> None:
    assert weight_of(told) == weight


@pytest.mark.parametrize(
    "told",
    [b"\x31", b"\x31abc", b"\x08", b"\x08\x80", b"\x22\x05abc", b"\x55ab", b"\x0b", b"\x08" + b"\xff" * 20],
)
def test_what_is_no_report(told: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        weight_of(told)


@given(some.binary(max_size=60))
def test_whatever_a_report_says_its_weight_can_be_used(told: bytes) -> None:
    try:
        weight = weight_of(told)
    except ValueError:
        return
    assert 0 <= weight < math.inf


@given(*[some.floats(allow_nan=True, allow_infinity=True)] * 3)
def test_whatever_the_figures_are_each_replica_can_be_chosen(rate: float, utilization: float, errors: float) -> None:
    weight = weight_of(double(RATE, rate) + double(UTILIZATION, utilization) + double(ERRORS, errors))
    assert 0 <= weight < math.inf
    policy, replicas = ByLoad(), [One(b"a", weight), One(b"b")]
    for _ in range(3):
        policy(replicas, ())
    replicas[0].weight = 1.0
    assert {policy(replicas, ()).key for _ in range(4)} == {b"a", b"b"}

"""Which targets are asked first, and when one that failed is asked again."""

from __future__ import annotations

from gateway.breaker import Breakers
from gateway.routed import by_weight
from gateway.settings import BreakerSettings, Target

FIRST, SECOND = Target(worker="w", model="first"), Target(worker="w", model="second")
BOTH = (FIRST, SECOND)


class Clock:
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def broken(clock: Clock, failures: int = 3) -> Breakers:
    """The first target has failed so often in a row."""
    breakers = Breakers(BreakerSettings(failures=3, rest=10, longest_rest=60), clock)
    for _ in range(failures):
        breakers.failed(FIRST, None)
    return breakers


def test_the_configured_order_while_all_is_well() -> None:
    assert broken(Clock(), failures=0).order(BOTH) == BOTH


def test_a_few_failures_change_nothing() -> None:
    breakers = broken(Clock(), failures=2)
    assert breakers.order(BOTH) == BOTH
    assert breakers.resting() == []


def test_a_target_that_keeps_failing_is_asked_last() -> None:
    breakers = broken(Clock())
    assert breakers.order(BOTH) == (SECOND, FIRST)
    assert breakers.resting() == [FIRST]


def test_one_request_finds_out_whether_it_is_well_again() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now = 10.0
    assert breakers.order(BOTH) == BOTH
    breakers.asked(FIRST)
    assert breakers.order(BOTH) == (SECOND, FIRST), "a second request while the first is finding out"
    breakers.succeeded(FIRST)
    assert breakers.order(BOTH) == BOTH


def test_who_was_not_asked_after_all_is_still_to_be_found_out() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now = 10.0
    assert breakers.order((SECOND, FIRST)) == (SECOND, FIRST)
    assert breakers.order(BOTH) == BOTH


def test_a_probe_that_fails_makes_it_rest_again() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now = 10.0
    breakers.asked(FIRST)
    breakers.failed(FIRST, None)
    assert breakers.order(BOTH) == (SECOND, FIRST)
    clock.now = 20.0
    assert breakers.order(BOTH) == BOTH


def test_a_probe_that_found_out_nothing_lets_the_next_one_try() -> None:
    clock = Clock()
    breakers = broken(clock)
    clock.now = 10.0
    breakers.asked(FIRST)
    breakers.released(FIRST)
    assert breakers.order(BOTH) == BOTH


def test_who_asks_to_be_left_alone_is_at_once_and_for_so_long() -> None:
    clock = Clock()
    breakers = broken(clock, failures=0)
    breakers.failed(FIRST, 4.0)
    assert breakers.order(BOTH) == (SECOND, FIRST)
    clock.now = 4.0
    assert breakers.order(BOTH) == BOTH


def test_nobody_is_left_alone_longer_than_the_longest_rest() -> None:
    clock = Clock()
    breakers = broken(clock, failures=0)
    breakers.failed(FIRST, 3600.0)
    clock.now = 60.0
    assert breakers.order(BOTH) == BOTH


def test_who_asks_for_less_than_a_rest_rests_all_the_same_once_it_keeps_failing() -> None:
    clock = Clock()
    breakers = broken(clock, failures=2)
    breakers.failed(FIRST, 0.5)
    clock.now = 9.9
    assert breakers.order(BOTH) == (SECOND, FIRST)
    clock.now = 10.0
    assert breakers.order(BOTH) == BOTH


def test_who_asks_for_a_moment_has_no_more() -> None:
    clock = Clock()
    breakers = broken(clock, failures=0)
    breakers.failed(FIRST, 0.5)
    assert breakers.resting() == [FIRST]
    clock.now = 0.5
    assert breakers.order(BOTH) == BOTH


def test_who_rests_is_told_until_the_rest_is_over() -> None:
    clock = Clock()
    breakers = broken(clock)
    breakers.failed(SECOND, None)
    clock.now = 9.9
    assert breakers.resting() == [FIRST]
    clock.now = 10.0
    assert breakers.resting() == []


def test_nobody_waits_for_what_was_asked_before_the_target_was_known_to_fail() -> None:
    clock = Clock()
    breakers = broken(clock, failures=2)
    breakers.asked(FIRST)
    breakers.failed(FIRST, None)
    clock.now = 10.0
    assert breakers.order(BOTH) == BOTH


def test_a_success_forgets_failures() -> None:
    breakers = broken(Clock(), failures=2)
    breakers.succeeded(FIRST)
    breakers.failed(FIRST, None)
    assert breakers.order(BOTH) == BOTH


def test_weights_draw_the_first_and_keep_the_others_in_order() -> None:
    light, heavy, spare = (Target(worker="w", model=str(i), weight=w) for i, w in enumerate((1.0, 3.0, 0.0)))
    drawn = [by_weight((light, heavy, spare)) for _ in range(400)]
    assert {order[0] for order in drawn} == {light, heavy}
    assert {order for order in drawn if order[0] == heavy} == {(heavy, light, spare)}
    assert sum(order[0] == heavy for order in drawn) > sum(order[0] == light for order in drawn)
    assert by_weight(BOTH) == BOTH

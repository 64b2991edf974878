"""What further targets may cost: a budget that requests earn."""

from __future__ import annotations

import pytest

from gateway.routed import Budget
from gateway.settings import RetrySettings


def spent(budget: Budget) -> int:
    """How often one more target may be asked until no more may be."""
    return next(count for count in range(1000) if not budget.spend())


@pytest.mark.parametrize(("reserve", "expected"), [(1, 1), (3, 3), (2.5, 2)])
def test_the_reserve_may_be_spent_at_once(reserve: float, expected: int) -> None:
    assert spent(Budget(RetrySettings(ratio=0.0, reserve=reserve))) == expected


def test_requests_earn_and_never_more_than_the_reserve() -> None:
    budget = Budget(RetrySettings(ratio=0.5, reserve=3))
    for _ in range(100):
        budget.earn()
    assert spent(budget) == 3
    for expected in (0, 1, 0, 1):
        budget.earn()
        assert spent(budget) == expected
    for _ in range(4):
        budget.earn()
    assert spent(budget) == 2

"""Who is remembered by limits that are kept in this process, and how long."""

from __future__ import annotations

from gateway.limits.local import LocalLimits
from gateway.limits.policy import Holder, Limits, Refusal

NOON = 1_790_000_000.0


def test_whom_nothing_need_be_remembered_of_is_forgotten() -> None:
    """After an hour: not who has a request open, nor whose tokens or cost of the day or month count."""
    limits, other = LocalLimits(), Holder("key:other", "a", Limits())
    holders = {what: Holder(f"key:{what}", "a", Limits()) for what in ("idle", "open", "tokens", "cost", "late")}
    for what, holder in holders.items():
        limits.admit([holder], 10, NOON + (1 if what == "late" else 0))
        if what != "open":
            limits.settle([holder], 10, 5 if what == "tokens" else 0, 0.5 if what == "cost" else 0.0, NOON)

    def known() -> set[str]:
        return {id.removeprefix("key:") for id in limits._counters}  # noqa: A001, SLF001

    limits.admit([other], 0, NOON + 3600)
    assert known() == {*holders, "other"}
    limits.settle([other], 0, 0, 0.0, NOON + 3600)
    limits.admit([other], 0, NOON + 3660.5)
    assert known() == {"open", "tokens", "cost", "other"}
    limits.admit([other], 0, NOON + 40 * 86400)
    assert known() == {"open", "other"}


def test_who_is_swept_seldom_is_asked_for_seldom() -> None:
    """Once a minute, not at each request."""
    limits, first, second = LocalLimits(), Holder("key:first", "a", Limits()), Holder("key:second", "a", Limits())
    limits.admit([first], 0, NOON)
    limits.settle([first], 0, 0, 0.0, NOON)
    for seconds in (3590, 3610, 3649):
        limits.admit([second], 0, NOON + seconds)
        assert len(limits._counters) == 2  # noqa: SLF001
    limits.admit([second], 0, NOON + 3650)
    assert len(limits._counters) == 1  # noqa: SLF001


def test_who_was_there_a_moment_ago_is_not_forgotten() -> None:
    """However long ago it came first."""
    limits, other = LocalLimits(), Holder("key:other", "a", Limits())
    limited = Holder("key:limited", "a", Limits(requests_per_minute=1))
    for holder, seconds in ((limited, 0), (other, 3545), (limited, 3600)):
        assert not isinstance(limits.admit([holder], 0, NOON + seconds), Refusal)
        limits.settle([holder], 0, 0, 0.0, NOON + seconds)
    limits.admit([other], 0, NOON + 3606)
    assert isinstance(limits.admit([limited], 0, NOON + 3607), Refusal)


def test_a_clock_that_was_set_back_does_not_end_the_forgetting() -> None:
    limits, first, second = LocalLimits(), Holder("key:first", "a", Limits()), Holder("key:second", "a", Limits())
    for holder, now in ((second, NOON + 40 * 86400), (first, NOON)):
        limits.admit([holder], 0, now)
        limits.settle([holder], 0, 0, 0.0, now)
    limits.admit([second], 0, NOON + 3601)
    assert set(limits._counters) == {"key:second"}  # noqa: SLF001

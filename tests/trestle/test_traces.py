"""What a caller's trace context says."""

from __future__ import annotations

import pytest

from trestle.traces import unrecorded

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("flags", ["00", "02"])
def test_a_caller_may_say_that_nothing_is_recorded(flags: str) -> None:
    assert unrecorded(f"00-{TRACE}-{SPAN}-{flags}")
    assert unrecorded(f"cc-{TRACE}-{SPAN}-{flags}-what-later-versions-add")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "none",
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-03",
        f"ff-{TRACE}-{SPAN}-00",
        f"00-{'0' * 32}-{SPAN}-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"00-{TRACE.upper()}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-0",
    ],
)
def test_what_says_otherwise_or_nothing_at_all_does_not(traceparent: str) -> None:
    assert not unrecorded(traceparent)

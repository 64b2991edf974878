"""The events of sessions in one process."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from support.upstream import PATIENCE

from gateway.sessions import SessionHub, event_id
from gateway.settings import SessionSettings
from trestle.errors import CallError
from trestle.v1 import session_pb2


def event(request: str) -> session_pb2.SessionEvent:
    return session_pb2.SessionEvent(request_id=request)


async def read(hub: SessionHub, count: int, after: str = "", account: str = "a", session: str = "s") -> list[str]:
    """The ids of the requests of so many events; a gap is `gap`."""
    found: list[str] = []
    async with asyncio.timeout(PATIENCE):
        async for batch in hub.read(account, session, event_id(after)):
            found += ["gap" if each.HasField("gap") else each.request_id for each in batch]
            if len(found) >= count:
                return found
    return found


async def test_what_is_kept_comes_first_and_then_what_happens() -> None:
    hub = SessionHub(SessionSettings())
    hub.publish("a", "s", event("1"))
    reading = asyncio.create_task(read(hub, 3))
    await asyncio.sleep(0)
    hub.publish("a", "s", event("2"))
    hub.publish("a", "other", event("x"))
    hub.publish("b", "s", event("y"))
    hub.publish("a", "s", event("3"))
    assert await reading == ["1", "2", "3"]


async def test_reading_goes_on_behind_any_event() -> None:
    hub = SessionHub(SessionSettings())
    told = [event(str(number)) for number in range(5)]
    for each in told:
        hub.publish("a", "s", each)
    assert [event_id(each.id) for each in told] == sorted({event_id(each.id) for each in told})
    for number, each in enumerate(told[:-1]):
        assert await read(hub, 4 - number, each.id) == [str(later) for later in range(number + 1, 5)]


async def test_what_is_no_longer_kept_is_said_to_be_missing() -> None:
    hub = SessionHub(SessionSettings(events=2))
    told = [event(str(number)) for number in range(5)]
    for each in told:
        hub.publish("a", "s", each)
    assert await read(hub, 3, told[0].id) == ["gap", "3", "4"]
    assert await read(hub, 1, told[3].id) == ["4"]


async def test_idle_and_too_many_sessions_are_forgotten_but_not_those_that_are_listened_to() -> None:
    hub = SessionHub(SessionSettings(most=3))
    listening = asyncio.create_task(read(hub, 2, session="heard"))
    await asyncio.sleep(0)
    for number in range(10):
        hub.publish("a", f"s{number}", event("x"))
    hub.publish("a", "heard", event("1"))
    hub.publish("a", "heard", event("2"))
    assert await listening == ["1", "2"]
    hub.publish("a", "s0", event("new"))
    assert await read(hub, 1, session="s0") == ["new"]
    assert await hub_forgot(hub, "s1")


async def hub_forgot(hub: SessionHub, session: str) -> bool:
    """Whether nothing of the session is kept: what comes next is the first that is read."""
    hub.publish("a", session, event("fresh"))
    return await read(hub, 1, session=session) == ["fresh"]


async def test_the_end_ends_every_reading() -> None:
    hub = SessionHub(SessionSettings())
    readings = [asyncio.create_task(read(hub, 1, session=name)) for name in ("s", "t")]
    await asyncio.sleep(0)
    await hub.close()
    assert await asyncio.gather(*readings) == [[], []]


@pytest.mark.parametrize("text", ["x", "1", "1-", "-1", "1-x", "-", "1-2-3", "9" * 50 + "-1"])
def test_an_id_that_is_none(text: str) -> None:
    with pytest.raises(CallError) as caught:
        event_id(text)
    assert caught.value.param == "after"


def memory() -> int:
    """Bytes that are this process's own (Linux)."""
    found = re.search(r"^Pss:\s+(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


async def test_a_session_that_nobody_listens_to_takes_little() -> None:
    """Of each event what it has on the wire, not a message ready to be read, which takes more than a kilobyte."""
    hub = SessionHub(SessionSettings())
    before = memory()
    for number in range(5_000):
        for _ in range(4):
            hub.publish("a", f"s{number}", event(f"req_{number:032}"))
    assert memory() - before < 12_000_000
    assert len(await read(hub, 4, session="s4999")) == 4

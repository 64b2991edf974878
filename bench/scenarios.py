"""What is measured, and what it may cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from bench.answers import model_name
from bench.load import STAGGER_SECONDS, Job
from bench.services import Way

BURST: Final = 200
STREAMS: Final = 200
INTERVAL_MS: Final = 20


@dataclass(frozen=True, slots=True)
class Length:
    """How long it takes. warm_up and seconds: of one run. rounds: how often each run is made."""

    warm_up: float
    seconds: float
    rounds: int


FULL: Final = Length(warm_up=0.4, seconds=1.6, rounds=3)
QUICK: Final = Length(warm_up=0.2, seconds=0.8, rounds=1)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load. ways: whom it is put to, by name; empty: everybody."""

    title: str
    load: Callable[[Length], Mapping[str, Any]]
    ways: tuple[str, ...] = ()

    def job(self, way: Way, length: Length) -> Job:
        """The load client's orders for one run."""
        common = {"port": way.port, "headers": way.headers, "watch": way.watch, "warm_up": length.warm_up}
        return msgspec.convert({**common, "seconds": length.seconds, **self.load(length)}, Job)

    def model(self, length: Length) -> str:
        """The name of the model that is asked for."""
        load = self.load(length)
        return model_name(load.get("chunks", 1), load.get("interval_ms", 0))


def _paced(length: Length) -> Mapping[str, Any]:
    # The first stream runs on until the last has begun and the window is over, with time to spare on a busy machine.
    open_seconds = STREAMS * STAGGER_SECONDS + length.warm_up + 2 * length.seconds + 2.5
    return {
        "shape": "held",
        "stream": True,
        "connections": STREAMS,
        "interval_ms": INTERVAL_MS,
        "chunks": int(open_seconds * 1000 / INTERVAL_MS),
        "seconds": 2 * length.seconds,
    }


_PARTIES: Final = ("proxy", "trestle", "litellm")
SCENARIOS: Final[Mapping[str, Scenario]] = {
    "request": Scenario("non-stream request", lambda _: {"shape": "closed"}),
    "setup": Scenario("stream of one chunk", lambda _: {"shape": "closed", "stream": True}, _PARTIES),
    "burst": Scenario(
        f"stream of {BURST} chunks, all at once",
        lambda _: {"shape": "closed", "stream": True, "chunks": BURST},
        _PARTIES,
    ),
    "paced": Scenario(f"{STREAMS} streams, a chunk each {INTERVAL_MS} ms", _paced, _PARTIES),
    "latency": Scenario("100 requests/s", lambda _: {"shape": "open", "rate": 100.0}),
    "first": Scenario(
        "100 streams/s", lambda _: {"shape": "open", "rate": 100.0, "stream": True, "chunks": 20, "interval_ms": 5}
    ),
}

"""`python -m bench.resilience`: what becomes of too much load, what hedging gives, and how soon an upstream hears of a
client that is gone. About a minute.

An upstream of this process's own takes a set time for each answer, and now and then a long one. Before it stand a
worker and a gateway as they are run in earnest; requests come at a set rate, whatever the answers do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from bench.answers import model_name
from bench.load import percentiles
from bench.services import running
from bench.upstream import UpstreamProtocol

_MODEL: Final = model_name(1, 0)
_ENDLESS: Final = model_name(10_000, 20)
_LEAVING: Final = 300
_CALLS: Final = 20
_SECONDS: Final = 0.1
CAPACITY: Final = _CALLS / _SECONDS
"""Requests a second that the upstream is let do: so many at once, each so long."""
_WINDOW: Final = 5.0
_QUICK: Final = 0.01
_SLOW: Final = 0.5
_SLOW_EVERY: Final = 20
_HEDGED_RATE: Final = 50.0


@dataclass
class Pace:
    """How the upstream behaves. seconds: of an answer; slow: of every so manieth (zero: of none). asked: how often."""

    seconds: float = 0.0
    slow_every: int = 0
    asked: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    lost_at: float = 0.0

    def next(self) -> float:
        self.asked += 1
        return _SLOW if self.slow_every and self.asked % self.slow_every == 0 else self.seconds


class _Upstream(UpstreamProtocol):
    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace_of_all = pace

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._pace_of_all.lost_at = time.perf_counter()
        self._pace_of_all.lost.set()

    def _answer(self, body: bytes) -> None:
        self._timer = self._loop.call_later(self._pace_of_all.next(), super()._answer, body)


@dataclass
class Seen:
    """What came of a window's requests: statuses, and the seconds of good answers."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


async def ask_at(rate: float, url: str, model: str, window: float) -> Seen:
    """Asks so often a second for so many seconds."""
    seen = Seen()
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}]}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def once() -> None:
            since = time.perf_counter()
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                await response.read()
            seen.statuses[response.status] += 1
            if response.status == 200:
                seen.seconds.append(time.perf_counter() - since)

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * window)):
                await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
                group.create_task(once())
    return seen


async def _overload(url: str, pace: Pace) -> None:
    pace.seconds, pace.slow_every = _SECONDS, 0
    print(f"\n{_CALLS} calls at once of {_SECONDS * 1000:g} ms each: {CAPACITY:g} requests/s, and {_CALLS} may wait\n")
    print("| asked/s | of capacity | good/s | turned away/s | p50 ms | p99 ms |\n|---|---|---|---|---|---|")
    for share in (0.5, 0.9, 1.0, 1.5, 2.0, 3.0):
        seen = await ask_at(CAPACITY * share, url, "bounded", _WINDOW)
        p50, p99 = percentiles(seen.seconds) or (0.0, 0.0)
        good, away = seen.statuses[200] / _WINDOW, seen.statuses[503] / _WINDOW
        print(f"| {CAPACITY * share:g} | {share:g} | {good:.0f} | {away:.0f} | {p50:.0f} | {p99:.0f} |")
        if seen.statuses.total() != seen.statuses[200] + seen.statuses[503]:
            raise SystemExit(f"bench: other answers than 200 and 503: {seen.statuses}")


async def _hedging(url: str, pace: Pace) -> None:
    print(f"\nan answer in {_QUICK * 1000:g} ms, one in {_SLOW_EVERY} in {_SLOW * 1000:g} ms; hedge_after 50 ms\n")
    print("| | p50 ms | p99 ms | calls per request |\n|---|---|---|---|")
    for model in ("plain", "hedged"):
        pace.seconds, pace.slow_every, pace.asked = _QUICK, _SLOW_EVERY, 0
        seen = await ask_at(_HEDGED_RATE, url, model, 2 * _WINDOW)
        p50, p99 = percentiles(seen.seconds) or (0.0, 0.0)
        print(f"| {model} | {p50:.0f} | {p99:.0f} | {pace.asked / seen.statuses.total():.2f} |")


async def _leaving(url: str, pace: Pace) -> None:
    """Clients that hang up in the middle of a stream, one after the other."""
    pace.seconds, pace.slow_every = 0.0, 0
    seconds: list[float] = []
    body = {"model": "endless", "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    for _ in range(_LEAVING):
        async with aiohttp.ClientSession() as session:
            response = await session.post(f"{url}/v1/chat/completions", json=body)
            await response.content.readany()
            pace.lost.clear()
            since = time.perf_counter()
            response.close()
            async with asyncio.timeout(_WINDOW):
                await pace.lost.wait()
            seconds.append(pace.lost_at - since)
    p50, p99 = percentiles(seconds) or (0.0, 0.0)
    print(f"\n{_LEAVING} clients hang up in a stream: the upstream's connection is closed after")
    print(f"{p50:.2f} ms (p50), {p99:.2f} ms (p99), {1000 * max(seconds):.2f} ms (most)")


def _config(upstream: int, worker: int) -> dict[str, Any]:
    url = {"base_url": f"http://127.0.0.1:{upstream}/v1", "models": [_MODEL, _ENDLESS], "retries": 0}
    bounded = {**url, "max_calls": _CALLS, "queue": _CALLS, "queue_timeout": 1.0}
    targets = [{"worker": "w", "upstream": name, "model": _MODEL} for name in ("one", "two", "bounded")]
    return {
        "gateway": {
            "auth": "open",
            "workers": {"w": f"127.0.0.1:{worker}"},
            "models": [
                {"name": "plain", "targets": targets[:1]},
                {"name": "hedged", "targets": targets[:2], "hedge_after": 0.05},
                {"name": "bounded", "targets": targets[2:]},
                {"name": "endless", "targets": [{"worker": "w", "upstream": "one", "model": _ENDLESS}]},
            ],
        },
        "worker": {"openai": {"upstreams": {"one": url, "two": url, "bounded": bounded}}},
    }


async def main() -> None:
    """Prints it all."""
    pace = Pace()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Upstream(pace), "127.0.0.1", 0, backlog=4096)
    upstream = server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)
        config = scratch / "trestle.yaml"
        ports = {"worker": 0}
        for service, command in (("worker", ["worker", "openai"]), ("gateway", ["gateway"])):
            config.write_text(json.dumps(_config(upstream, ports["worker"])))  # JSON is YAML
            arguments = [sys.executable, "-m", *command, "--config", str(config), "--listen", "127.0.0.1:0"]
            _, ports[service] = stack.enter_context(running(arguments, scratch / f"{service}.log"))
        url = f"http://127.0.0.1:{ports['gateway']}"
        await _overload(url, pace)
        await _hedging(url, pace)
        await _leaving(url, pace)
    server.close()


if __name__ == "__main__":
    uvloop.run(main())

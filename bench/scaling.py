"""`python -m bench.scaling`: how what a request or a chunk costs grows with what there is of everything. Six minutes.

Each table has the services anew, as they are run in earnest, and one load after the other; the load client and the
upstream are those of `python -m bench`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.__main__ import LostError, run
from bench.answers import model_name
from bench.load import STAGGER_SECONDS, Job, Measured
from bench.services import KEY, StartError, config, running

_SECONDS: Final = 3.0
_KEPT_UP: Final = 0.99
"""The share of chunks that comes in time where streams are kept up with."""
_PROMPTS: Final = (0, 10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is served. models: beside those that are asked for. keys: beside the one that is shown. route: settings of
    each model. processes: of each service."""

    asked: Sequence[str]
    models: int = 0
    keys: int = 0
    route: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Served:
    """port: the gateway's. watch: name -> process id of whoever answers."""

    port: int
    watch: Mapping[str, int]

    def measure(self, **job: Any) -> Measured:
        """What a load costs; job: as `Job` has it. Raises `LostError`."""
        common = {"port": self.port, "watch": dict(self.watch), "headers": {"authorization": f"Bearer {KEY}"}}
        return run(msgspec.convert({"shape": "closed", "seconds": _SECONDS, **common, **job}, Job))

    def held(self, streams: int, interval_ms: int, size: int = 0) -> Measured:
        """What so many streams cost that are open all the time."""
        seconds = streams * STAGGER_SECONDS + 2 * _SECONDS + 3.0
        chunks = int(seconds * 1000 / interval_ms)
        return self.measure(
            shape="held", stream=True, connections=streams, interval_ms=interval_ms, chunks=chunks, size=size
        )

    def memory(self) -> int:
        """Bytes that belong to the services alone."""
        return sum(_own_memory(pid) for pid in self.watch.values())


def held_model(streams: int, interval_ms: int, size: int = 0) -> str:
    """The model that `Served.held` asks for."""
    return model_name(int((streams * STAGGER_SECONDS + 2 * _SECONDS + 3.0) * 1000 / interval_ms), interval_ms, size)


def cost(measured: Measured, count: int) -> tuple[float, float]:
    """CPU-microseconds of the gateway and of the worker for each of so many."""
    found = {"gateway": 0.0, "worker": 0.0}
    for name, seconds in measured.cpu.items():
        service = name.rstrip("0123456789")
        if service in found:
            found[service] += seconds / count * 1e6
    return found["gateway"], found["worker"]


@contextlib.contextmanager
def served(setting: Setting) -> Iterator[Served]:
    """Upstream, worker and gateway. Raises `StartError`."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        scratch = Path(name)

        def start(log: str, *arguments: str) -> tuple[int, int]:
            return stack.enter_context(running([sys.executable, "-m", *arguments], scratch / f"{log}.log"))

        _, upstream = start("upstream", "bench.upstream")
        file = scratch / "trestle.yaml"
        file.write_text(json.dumps(_config(setting, upstream, [0])))  # JSON is YAML
        base = _free_ports(setting.processes)
        several = ["--processes", str(setting.processes)] if setting.processes > 1 else []
        common = ["--config", str(file), *several, "--listen"]
        worker, _ = start("worker", "worker", "openai", *common, f"127.0.0.1:{base}")
        file.write_text(json.dumps(_config(setting, upstream, range(base, base + setting.processes))))
        gateway, port = start("gateway", "gateway", *common, f"127.0.0.1:{_free_ports(1)}")
        watch = {
            f"{service}{number}": pid
            for service, parent in (("gateway", gateway), ("worker", worker))
            for number, pid in enumerate(_children(parent) if several else [parent])
        }
        yield Served(port, watch)


def _config(setting: Setting, upstream: int, workers: Sequence[int]) -> dict[str, Any]:
    models = [*dict.fromkeys(setting.asked), *(f"model-{i}" for i in range(setting.models))]
    made: dict[str, Any] = config(upstream, 0, models, {})
    gateway = made["gateway"]
    gateway["workers"] = {"openai": "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in workers)}
    gateway["models"] = [{**model, **setting.route} for model in gateway["models"]]
    gateway["keys"] += [
        {"name": f"key-{i}", "sha256": hashlib.sha256(b"%d" % i).hexdigest()} for i in range(setting.keys)
    ]
    return made


def _free_ports(count: int) -> int:
    """The first of so many in a row, below those that the kernel gives to whoever connects somewhere."""
    while True:
        first = random.randrange(10_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _own_memory(pid: int) -> int:
    """Proportional set size, in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LostError(f"process {pid} tells no memory")


def _row(*cells: object) -> None:
    print(f"| {' | '.join(_said(cell) for cell in cells)} |", flush=True)


def _said(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f"{cell:.0f}" if cell >= 100 else f"{cell:.1f}" if cell >= 10 else f"{cell:.2f}"


def _head(*names: str) -> None:
    print()
    _row(*names)
    print("|" + "---|" * len(names))


def streams() -> None:
    """Open streams, a chunk each half a second, and a thousand with one each fifth of it. None is lost, or there is no
    row."""
    loads = ((10, 500), (100, 500), (500, 500), (1000, 500), (2000, 500), (1000, 200))
    with served(Setting([held_model(*load) for load in loads])) as services:
        services.held(*loads[0])
        costs = ("gateway µs a chunk", "worker", "both", "chunks to a read")
        _head("open streams", "ms between chunks", "% in time", *costs)
        for count, every in loads:
            measured = services.held(count, every)
            gateway, worker = cost(measured, measured.chunks)
            share = measured.chunks / (count * 1000 / every * measured.seconds)
            _row(count, every, 100 * share, gateway, worker, gateway + worker, measured.chunks / measured.reads)


def most_streams() -> None:
    """How many streams with a chunk each 20 ms are kept up with: more and more of them, until some are late."""
    every = 20
    counts = (100, 200, 300, 400, 600, 800, 1000, 1200, 1400, 1600, 2000)
    with served(Setting([held_model(count, every) for count in counts])) as services:
        _head(
            "open streams, a chunk each 20 ms",
            "% in time",
            "gateway µs a chunk",
            "worker",
            "CPUs of both",
            "chunks to a read",
        )
        for count in counts:
            measured = services.held(count, every)
            gateway, worker = cost(measured, measured.chunks)
            share = measured.chunks / (count * 1000 / every * measured.seconds)
            busy = (gateway + worker) * measured.chunks / measured.seconds / 1e6
            _row(count, 100 * share, gateway, worker, busy, measured.chunks / measured.reads)
            if share < _KEPT_UP:
                break


def flush_intervals() -> None:
    """What `flush_interval` gives."""
    every, count = 20, 300
    load = f"{count} streams, a chunk each {every} ms"
    _head(f"flush_interval, {load}", "gateway µs a chunk", "worker", "both", "% in time")
    for flush in (0.0, 0.05, 0.1, 0.25, 0.5):
        with served(Setting([held_model(count, every)], route={"flush_interval": flush})) as services:
            measured = services.held(count, every)
            gateway, worker = cost(measured, measured.chunks)
            due = count * 1000 / every * measured.seconds
            _row(f"{flush:g} s", gateway, worker, gateway + worker, 100 * measured.chunks / due)


def prompts() -> None:
    """The size of a request."""
    with served(Setting([model_name(1)])) as services:
        services.measure(connections=4)
        _head("bytes of a prompt", "gateway µs", "worker", "both", "both, µs a KB beyond the least")
        least = 0.0
        for size in _PROMPTS:
            measured = services.measure(connections=4, prompt_bytes=size)
            gateway, worker = cost(measured, measured.answers)
            least = least or gateway + worker
            more = (gateway + worker - least) / (size / 1000) if size else 0.0
            _row(f"{size + 400:,}", gateway, worker, gateway + worker, more)


def texts() -> None:
    """The size of a chunk, of streams of 100 at once."""
    sizes = (0, 100, 1000, 10_000, 100_000)
    with served(Setting([model_name(100, size=size) for size in sizes])) as services:
        services.measure(stream=True, chunks=100, connections=4)
        _head("characters of a chunk, 100 at once", "gateway µs a stream", "worker", "both", "MB/s")
        for size in sizes:
            measured = services.measure(stream=True, chunks=100, connections=4, size=size)
            gateway, worker = cost(measured, measured.answers)
            _row(size or 6, gateway, worker, gateway + worker, measured.chunks * max(size, 6) / measured.seconds / 1e6)


def names() -> None:
    """Models and keys."""
    _head("models", "keys", "gateway µs a request", "worker", "both", "MB of both at first")
    for models, keys in ((0, 0), (10_000, 0), (0, 100_000)):
        with served(Setting([model_name(1)], models=models, keys=keys)) as services:
            memory = services.memory() / 1e6
            measured = services.measure()
            gateway, worker = cost(measured, measured.answers)
            _row(f"{models + 1:,}", f"{keys + 1:,}", gateway, worker, gateway + worker, memory)


def processes() -> None:
    """One and two of each service. Load client and upstream take their part of the same CPUs."""
    _head("processes of each service", "requests/s", "µs a request, both", "chunks/s, 200 at once")
    for count in (1, 2):
        with served(Setting([model_name(1), model_name(200)], processes=count)) as services:
            services.measure(connections=32)
            plain = services.measure(connections=32)
            burst = services.measure(connections=32, stream=True, chunks=200)
            each = sum(cost(plain, plain.answers))
            _row(count, plain.answers / plain.seconds, each, burst.chunks / burst.seconds)


TABLES: Final[Mapping[str, Callable[[], None]]] = {
    table.__name__: table for table in (streams, most_streams, flush_intervals, prompts, texts, names, processes)
}


def main() -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=TABLES, metavar="TABLE", help=f"of {', '.join(TABLES)}; repeatable"
    )
    for name in parser.parse_args().only or TABLES:
        try:
            TABLES[name]()
        except (LostError, StartError) as error:
            print(f"bench: {name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

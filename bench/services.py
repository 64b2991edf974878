"""The processes of a run, started and ended; and the ways through them that are compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import selectors
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
KEY: Final = "sk-bench-3f9d2c71"
"""Which the gateway of a run asks for."""


class StartError(Exception):
    """A process did not come to serve."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way from the load client to the answer. port: where to ask. watch: name -> process id of what it costs."""

    name: str
    port: int
    watch: Mapping[str, int]
    headers: Mapping[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[tuple[int, int]]:
    """A service that says `listening on HOST:PORT` once it serves: its process id and its port. Ended on the way out.

    log: where its standard error goes. Raises `StartError`.
    """
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL, cwd=ROOT, env=environment
        ) as process,
    ):
        try:
            yield process.pid, _port(process, " ".join(command[1:4]), log)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _port(process: subprocess.Popen[bytes], name: str, log: Path) -> int:
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        line = process.stdout.readline().decode() if selector.select(_START_SECONDS) else ""
    if not line.startswith("listening on "):
        raise StartError(f"{name} does not serve: {log.read_text(errors='replace')[-2000:] or line}")
    return int(line.rpartition(":")[2])


@contextlib.contextmanager
def ways(scratch: Path, models: list[str], *, recorded: bool = False) -> Iterator[list[Way]]:
    """All that this project needs, started: the upstream itself, the floor, and our gateway with a worker.

    scratch: an empty directory for configuration and logs. models: the names that will be asked for. recorded: both
    services have their metrics, and the gateway its ledger, in SQLite. Raises `StartError`.
    """
    with contextlib.ExitStack() as stack:

        def start(name: str, *arguments: str) -> tuple[int, int]:
            return stack.enter_context(running([sys.executable, "-m", *arguments], scratch / f"{name}.log"))

        upstream, upstream_port = start("upstream", "bench.upstream")
        proxy, proxy_port = start("proxy", "bench.proxy", f"127.0.0.1:{upstream_port}")
        file = scratch / "trestle.yaml"
        extra = _recording(scratch) if recorded else {}
        file.write_text(json.dumps(config(upstream_port, 0, models, extra)))  # JSON is YAML
        worker, worker_port = start("worker", "worker", "openai", "--config", str(file), "--listen", "127.0.0.1:0")
        file.write_text(json.dumps(config(upstream_port, worker_port, models, extra)))
        gateway, gateway_port = start("gateway", "gateway", "--config", str(file), "--listen", "127.0.0.1:0")
        yield [
            Way("upstream", upstream_port, {"upstream": upstream}),
            Way("proxy", proxy_port, {"upstream": upstream, "proxy": proxy}),
            Way(
                "trestle",
                gateway_port,
                {"upstream": upstream, "worker": worker, "gateway": gateway},
                {"authorization": f"Bearer {KEY}"},
            ),
        ]


def _recording(scratch: Path) -> dict[str, dict[str, object]]:
    metrics: dict[str, object] = {"metrics": "127.0.0.1:0"}
    return {"gateway": {**metrics, "database": f"sqlite:///{scratch}/ledger.db"}, "worker": metrics}


def config(
    upstream_port: int, worker_port: int, models: list[str], extra: Mapping[str, Mapping[str, object]]
) -> dict[str, object]:
    """The services' defaults, with a key, one worker, one upstream. extra: beside them, by service."""
    return {
        "gateway": {
            **extra.get("gateway", {}),
            "auth": "keys",
            "keys": [{"name": "bench", "sha256": hashlib.sha256(KEY.encode()).hexdigest()}],
            "workers": {"openai": f"127.0.0.1:{worker_port}"},
            "models": [{"name": name, "targets": [{"worker": "openai", "model": name}]} for name in models],
        },
        "worker": {
            **extra.get("worker", {}),
            "openai": {"upstreams": {"bench": {"base_url": f"http://127.0.0.1:{upstream_port}/v1", "models": models}}}
        },
    }

"""The processes of a run, started and ended; and the ways through them that are compared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
_START_SECONDS: Final = 30.0
_SLOW_START_SECONDS: Final = 120.0
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
def ways(
    scratch: Path, models: list[str], *, recorded: bool = False, litellm: Path | None = None
) -> Iterator[list[Way]]:
    """All that this project needs, started: the upstream itself, the floor, and our gateway with a worker.

    scratch: an empty directory for configuration and logs. models: the names that will be asked for. recorded: both
    services have their metrics, and the gateway its ledger, in SQLite. litellm: the command of LiteLLM's proxy, which
    is then one more way. Raises `StartError`.
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
            *([stack.enter_context(_litellm(litellm, scratch, models, upstream, upstream_port))] if litellm else ()),
        ]


@contextlib.contextmanager
def _litellm(command: Path, scratch: Path, models: list[str], upstream: int, upstream_port: int) -> Iterator[Way]:
    """LiteLLM's proxy as it is run in earnest: one process, one key, no database."""
    provider = {"api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "none"}
    file = scratch / "litellm.yaml"
    listed = [{"model_name": name, "litellm_params": {"model": f"openai/{name}", **provider}} for name in models]
    file.write_text(json.dumps({"model_list": listed, "general_settings": {"master_key": KEY}}))  # JSON is YAML
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    quiet = {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    listen = ["--host", "127.0.0.1", "--port", str(port)]
    arguments = [str(command), "--config", str(file), *listen, "--telemetry", "False"]
    log = scratch / "litellm.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            arguments, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=scratch, env={**os.environ, **quiet}
        ) as process,
    ):
        try:
            _wait_for(port, process, log)
            watch = {"upstream": upstream, "litellm": process.pid}
            yield Way("litellm", port, watch, {"authorization": f"Bearer {KEY}"})
        finally:
            process.kill()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _SLOW_START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise StartError(f"litellm does not serve: {log.read_text(errors='replace')[-2000:]}")


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

"""The services as they run in earnest: processes of their own, a configuration file, ports of the kernel's choice.

A start costs half a second of a CPU, nearly all of it for imports, and the suite makes hundreds: they are forked from a
process that has imported (`forked`), but where `python -m` itself is tested, or what a process holds is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from support import forked
from support.upstream import PATIENCE

ROOT: Final = Path(__file__).resolve().parents[2]
FREE_PORT: Final = "127.0.0.1:0"
_LISTENING: Final = "listening on "
Process: TypeAlias = asyncio.subprocess.Process | forked.Process
_running: list[Service] = []


class Service:
    """One running process. address: where it listens, `127.0.0.1:PORT`. killed: its end is no clean one."""

    def __init__(self, name: str, process: Process, address: str, log: Path) -> None:
        self.name = name
        self.process = process
        self.address = address
        self.killed = False
        self._log = log
        self._read = 0

    def new_log(self) -> str:
        """What it logged since this was asked last."""
        text = self._log.read_text(encoding="utf-8", errors="replace")
        new, self._read = text[self._read :], len(text)
        return new

    async def logged(self, words: str) -> str:
        """Waits until it has logged that; returns what is new in its log."""
        text = self.new_log()
        try:
            async with asyncio.timeout(PATIENCE):
                while words not in text:
                    await asyncio.sleep(0.02)
                    text += self.new_log()
        except TimeoutError:
            raise AssertionError(f"{self.name} has not logged {words!r} but: {text}") from None
        return text

    async def other_address(self, what: str) -> str:
        """Where else it listens, from its next line: `WHAT listening on ADDRESS`."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await self.process.stdout.readline()).decode().strip()
        named, _, address = line.partition(f" {_LISTENING}")
        assert named == what, line
        return address

    async def kill(self) -> None:
        """Ends it as no process can be prepared for."""
        self.killed = True
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """Asks it to end, by SIGTERM; returns its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


def new_logs() -> dict[str, str]:
    """What each running service logged since this was asked last, by its name; for the report of a failed test."""
    return {service.name: text for service in _running if (text := service.new_log())}


async def start(
    name: str,
    *command: str,
    config: Mapping[str, Any],
    folder: Path,
    environment: Mapping[str, str] | None = None,
    listen: str = FREE_PORT,
    files: tuple[int, int] | None = None,
    forks: bool = True,
) -> Service:
    """Starts `python -m COMMAND` and returns once it serves.

    config: the whole configuration file. folder: for the file and the log. environment: variables beside our own.
    files: how many it may open, and may allow itself to; None: as many as we. forks: whether it may be a fork.
    """
    file, log = folder / f"{name}.yaml", folder / f"{name}.log"
    file.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    module, arguments = command[0], (*command[1:], "--config", str(file), "--listen", listen)
    variables = {**os.environ, **(environment or {})}
    process: Process
    with log.open("wb") as errors:
        if forks and files is None:
            process = await forked.start(module, *arguments, environment=variables, folder=ROOT, log=errors.fileno())
        else:
            bounded = () if files is None else ("prlimit", f"--nofile={files[0]}:{files[1]}")
            process = await asyncio.create_subprocess_exec(
                *(*bounded, *run(module, *arguments)),
                cwd=ROOT,
                env=variables,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
    assert process.stdout is not None
    # Nothing is learnt from how long it takes, and where a fixture waits a failure would be that of many tests.
    try:
        async with asyncio.timeout(3 * PATIENCE):
            line = (await process.stdout.readline()).decode()
    except TimeoutError:
        line = "it did not say that it listens\n"
    if not line.startswith(_LISTENING):
        if process.returncode is None:
            process.kill()
        await process.wait()
        raise AssertionError(f"{name} did not start: {line}{log.read_text(encoding='utf-8', errors='replace')}")
    return Service(name, process, line.removeprefix(_LISTENING).strip(), log)


def run(*command: str) -> tuple[str, ...]:
    """How `python -m COMMAND` is run here."""
    return (sys.executable, "-m", *command)


@asynccontextmanager
async def running(name: str, *command: str, **options: Any) -> AsyncIterator[Service]:
    """`start` with its options, and on the way out the service's end, which must be a clean one."""
    service = await start(name, *command, **options)
    _running.append(service)
    try:
        yield service
    finally:
        try:
            status = await service.stop()
        except TimeoutError:
            await service.kill()
            raise AssertionError(f"{name} does not end: {service.new_log()}") from None
        finally:
            _running.remove(service)
    assert status == 0 or service.killed, f"{name} ended with status {status}: {service.new_log()}"


@asynccontextmanager
async def gateway(
    settings: Mapping[str, Any],
    folder: Path,
    name: str = "gateway",
    environment: Mapping[str, str] | None = None,
    forks: bool = True,
) -> AsyncIterator[Service]:
    """A gateway with these settings, open to everybody unless they say otherwise."""
    config = {"gateway": {"auth": "open", **settings}}
    options = {"config": config, "folder": folder, "environment": environment, "forks": forks}
    async with running(name, "gateway", **options) as service:
        yield service


@asynccontextmanager
async def worker(
    family: str,
    folder: Path,
    upstreams: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    listen: str = FREE_PORT,
    settings: Mapping[str, Any] | None = None,
    forks: bool = True,
) -> AsyncIterator[Service]:
    """A worker of this family; upstreams: by name, as the configuration has them; settings: of all workers."""
    own = {family: {"upstreams": upstreams}} if upstreams is not None else {}
    config = {"worker": {**(settings or {}), **own}}
    name = f"worker-{family}"
    options = {"config": config, "folder": folder, "environment": environment, "listen": listen, "forks": forks}
    async with running(name, "worker", family, **options) as service:
        yield service

"""Several processes of one service on one machine: started, watched, started again, ended together.

Each is spawned, never forked, and this process imports nothing of gRPC. It holds one end of a pipe that each of them
has as its standard input: when it is gone, be it killed, they see the pipe's end and stop as if they had been told to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from trestle import logs

log: Final = logging.getLogger("trestle")
LISTENING: Final = "listening on "
_INDEX: Final = "TRESTLE_PROCESS"
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_WELL: Final = 60.0
"""Seconds after which a process that ends is taken to have been well."""
_MARGIN: Final = 10.0


def share() -> tuple[int, int]:
    """Which of how many processes this one is; (0, 1) where nobody supervises."""
    index, _, of = os.environ.get(_INDEX, "0/1").partition("/")
    return int(index), int(of)


def follow_supervisor(stop: Callable[[], None]) -> None:
    """Calls `stop` when the supervisor is gone. Inside a running loop; does nothing where nobody supervises."""
    if _INDEX not in os.environ:
        return
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 1):
            loop.remove_reader(0)
            stop()

    loop.add_reader(0, readable)


def divided(what: str, most: int, of: int) -> int:
    """One process's share of a limit; zero stays zero, no limit. Raises ValueError where there is not one for each."""
    if most and most < of:
        raise ValueError(f"{what}: {most} cannot be shared among {of} processes")
    return most // of


def shifted(address: str, index: int) -> str:
    """The address of the process with this index: the same host, so many ports further. An empty one, and port 0, stay
    as they are."""
    host, colon, port = address.rpartition(":")
    return f"{host}{colon}{int(port) + index}" if address and port != "0" else address


class Supervisor:
    """command: what each process runs, after `python -m`. count: how many. grace: seconds that they may take to end."""

    def __init__(self, command: Sequence[str], count: int, grace: float) -> None:
        self._command = command
        self._count = count
        self._grace = grace + _MARGIN
        self._stopping = asyncio.Event()
        self._status = 0
        self._processes: dict[int, Process] = {}
        self._addresses: dict[int, str] = {}

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; returns the exit status: 0, or that of a process that cannot be started."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._send, signal.SIGHUP)
        await asyncio.gather(*(self._keep(index) for index in range(self._count)))
        return self._status

    def _interrupt(self) -> None:
        if self._stopping.is_set():  # Ctrl-C again
            self._send(signal.SIGKILL)
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                process.send_signal(number)

    async def _keep(self, index: int) -> None:
        """Has one process running, until all are to stop."""
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = loop.time()
            process = await self._start(index)
            log.info("process %d of %d is %d", index, self._count, process.pid)
            status = await self._follow(index, process)
            if self._stopping.is_set():
                if status not in (0, -signal.SIGTERM):  # by that, when it had hardly begun
                    log.warning("process %d ended with %s", index, _said(status))
                    self._status = self._status or 1
                return
            if index not in self._addresses:
                log.error("process %d cannot be started (%s); stopping", index, _said(status))
                self._status = abs(status)  # 0: it has nothing to do here
                self._stop()
                return
            if loop.time() - began > _WELL:
                pause = _FIRST_PAUSE
            log.error("process %d ended with %s; again in %g s", index, _said(status), pause)
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _start(self, index: int) -> Process:
        # A process group of its own: Ctrl-C reaches the supervisor alone.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *self._command),
            stdin=PIPE,
            stdout=PIPE,
            process_group=0,
            env={**os.environ, _INDEX: f"{index}/{self._count}"},
        )
        self._processes[index] = process
        if self._stopping.is_set():
            process.terminate()
        return process

    async def _follow(self, index: int, process: Process) -> int:
        """Passes on what it says; returns how it ended."""
        assert process.stdout is not None
        last = asyncio.create_task(self._end(process))
        async for line in process.stdout:
            text = line.decode(errors="replace").rstrip("\n")
            if text.startswith(LISTENING):
                self._serves(index, text.removeprefix(LISTENING))
            else:
                logs.tell(f"process {index}: {text}")
        status = await process.wait()
        last.cancel()
        return status

    def _serves(self, index: int, address: str) -> None:
        first = len(self._addresses) < self._count
        self._addresses[index] = address
        if first and len(self._addresses) == self._count:
            for each in dict.fromkeys(self._addresses[i] for i in range(self._count)):
                logs.tell(f"{LISTENING}{each}")

    async def _end(self, process: Process) -> None:
        """Kills a process that takes too long to end."""
        await self._stopping.wait()
        await asyncio.sleep(self._grace)
        log.error("process %d does not end by itself: killed", process.pid)
        process.kill()


def _said(status: int) -> str:
    return f"status {status}" if status >= 0 else f"signal {-status}"


def supervise(command: Sequence[str], count: int, part: Mapping[str, Any], **always: str) -> int:
    """As `Supervisor.run`. part: of the configuration file, as it stands there. always: as in `logs.configure`."""
    logs.configure("json" if part.get("log_format") == "json" else "text", "info", **always)
    grace = sum(float(part.get(name, default)) for name, default in (("drain_delay", 0), ("drain_timeout", 30)))

    async def run() -> int:
        return await Supervisor(command, count, grace).run()

    return asyncio.run(run())

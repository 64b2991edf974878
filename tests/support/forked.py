"""Services that are forked from a process which has imported what they import: a start then costs a twentieth. In all
else they are what `python -m` runs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Final

_forks: Final = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["gateway.command", "worker.command"])


class Process:
    """As far as tests use `asyncio.subprocess.Process`. stdout: what it writes there."""

    def __init__(self, process: Any, stdout: asyncio.StreamReader) -> None:
        self.stdout = stdout
        self.pid: int = process.pid
        self._process = process
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(process.sentinel, self._end)

    @property
    def returncode(self) -> int | None:
        """None while it runs; negative: the signal that it was killed by."""
        code: int | None = self._process.exitcode
        return code

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it as no process can be prepared for."""
        self._process.kill()

    async def wait(self) -> int:
        """Returns its exit status."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def _end(self) -> None:
        self._loop.remove_reader(self._process.sentinel)
        self._process.join()
        self._ended.set()


async def start(module: str, *arguments: str, environment: Mapping[str, str], folder: Path, log: int) -> Process:
    """As `python -m MODULE ARGUMENTS`, begun in that folder with only that environment. log: the descriptor of the file
    that its standard error goes to."""
    reading, writing = os.pipe()
    try:
        arranged = (module, arguments, dict(environment), folder, DupFd(writing), DupFd(log))
        process = _forks.Process(target=_run, args=arranged, daemon=True)
        process.start()
    finally:
        os.close(writing)
    stdout = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    # The transport closes the pipe.
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdout), os.fdopen(reading, "rb", 0))
    return Process(process, stdout)


def _run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, stdout: Any, stderr: Any
) -> None:
    os.dup2(stdout.detach(), 1)
    os.dup2(stderr.detach(), 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

"""A Redis server of the tests' own, from Debian's package."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.ports import free_port
from support.upstream import PATIENCE


class Missing(Exception):
    """There is no Redis on this machine."""


@dataclass
class RedisServer:
    """Listens on a free port of loopback, the same whenever it is started again; what it holds is gone with it."""

    folder: Path
    program: str
    port: int
    _process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns once it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen([self.program, *options], cwd=self.folder, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert time.monotonic() < end, (self.folder / "redis.log").read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, command: str) -> str:
        """One command, and the first line of its answer. Raises `OSError` where nobody answers."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(f"{command}\r\n".encode())
            return connection.makefile().readline().rstrip()

    def _answers(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running server. Raises `Missing` where none is installed."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise Missing("no Redis is installed (Debian: apt install redis-server)")
    server = RedisServer(folder, program, free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()

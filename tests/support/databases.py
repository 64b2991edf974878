"""Databases as they are in earnest: SQLite in a file, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

_USER = "postgres"
_QUICK = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "listen_addresses=", "max_connections=200")


class Missing(Exception):
    """There is no PostgreSQL on this machine; the message says what."""


@dataclass
class PostgreSQL:
    """A server that listens on a socket in its own folder alone. It does not run as root, so everything is done as
    another user where we are."""

    folder: Path
    binaries: Path
    user: str | None
    _names: Iterator[int] = field(default_factory=itertools.count)

    def create(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._names)}"
        self.run("createdb", "--host", str(self.folder), "--username", _USER, name)
        return f"postgresql://{_USER}@/{name}?host={quote(str(self.folder))}"

    def start(self) -> None:
        options = " ".join(f"-c {each}" for each in (*_QUICK, f"unix_socket_directories={self.folder}"))
        log = str(self.folder / "log")
        self.run("pg_ctl", "start", "--wait", "--pgdata", self.data, "--log", log, "--options", options)

    def stop(self, mode: str = "immediate") -> None:
        """At once, as if the machine were lost, and with it what was committed last; or `fast`, and nothing is."""
        self.run("pg_ctl", "stop", "--wait", "--pgdata", self.data, "--mode", mode)

    def signal(self, number: int) -> None:
        """To the server and all its processes: SIGSTOP makes one that takes connections and never answers."""
        main = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for process in (main, *map(int, children)):
            os.kill(process, number)

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def run(self, program: str, *arguments: str) -> None:
        output = self.folder / "output"
        # A file, for a pipe would be held open by the server.
        with output.open("wb") as file:
            done = subprocess.run(
                [self.binaries / program, *arguments],
                cwd=self.folder,
                user=self.user,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, f"{program}: {output.read_text(errors='replace')}"


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A running server, gone afterwards. Raises `Missing` where it is not installed."""
    binaries = _binaries()
    user = None
    # Not pytest's own folder, which is for nobody but us; and short, for a socket's path.
    with tempfile.TemporaryDirectory(prefix="trestle-pg-") as folder:
        if os.geteuid() == 0:
            user = _USER
            try:
                shutil.chown(folder, user)
            except LookupError:
                raise Missing("we are root, and there is no user postgres to run it as") from None
        server = PostgreSQL(Path(folder), binaries, user)
        authentication = ("--auth", "trust", "--username", _USER, "--encoding", "UTF8", "--no-sync")
        server.run("initdb", "--pgdata", server.data, *authentication)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _binaries() -> Path:
    """Debian keeps them off the PATH, by version."""
    on_path = shutil.which("initdb")
    candidates = [Path(on_path).parent] if on_path else []
    installed = Path("/usr/lib/postgresql")
    if installed.is_dir():
        candidates += sorted((each / "bin" for each in installed.iterdir()), reverse=True)
    for candidate in candidates:
        if all((candidate / program).exists() for program in ("initdb", "pg_ctl", "createdb")):
            return candidate
    raise Missing("no PostgreSQL is installed (Debian: apt install postgresql)")

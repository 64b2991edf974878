"""What a running process holds, as the kernel counts it (Linux)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from support.services import Service

_ESTABLISHED = "01"


@dataclass(frozen=True)
class Held:
    """sockets: open ones. threads: running ones. memory: bytes that are this process's own (PSS)."""

    sockets: int
    threads: int
    memory: int


def callers_of(service: Service) -> int:
    """How many connections there are to where it listens."""
    port = int(service.address.rpartition(":")[2])
    # gRPC's sockets are IPv6 ones, whatever they listen to.
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    fields = [line.split() for line in lines]
    return sum(each[1].endswith(f":{port:04X}") and each[3] == _ESTABLISHED for each in fields)


def held_by(service: Service) -> Held:
    """What it holds now."""
    folder = Path(f"/proc/{service.process.pid}")
    sockets = 0
    for each in (folder / "fd").iterdir():
        try:
            sockets += os.readlink(each).startswith("socket:")  # noqa: PTH115 (what it points to is no path)
        except FileNotFoundError:
            continue  # closed since it was listed
    threads = re.search(r"^Threads:\s+(\d+)$", (folder / "status").read_text(), re.MULTILINE)
    memory = re.search(r"^Pss:\s+(\d+) kB$", (folder / "smaps_rollup").read_text(), re.MULTILINE)
    assert threads is not None
    assert memory is not None
    return Held(sockets, int(threads[1]), int(memory[1]) * 1024)

"""Ports for what must be told its own before it listens."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

_LEAST: Final = 10_000
# Linux gives the ports from here on to whoever connects somewhere: one that is free now may not be in a moment.
_FIRST_EPHEMERAL: Final = 32_768


def free_port(hosts: Sequence[str] = ("127.0.0.1",), count: int = 1) -> int:
    """The first of so many ports in a row on which nobody listens, at any of the hosts."""
    while True:
        port = random.randrange(_LEAST, _FIRST_EPHEMERAL - count)
        with ExitStack() as stack:
            try:
                for host in hosts:
                    for each in range(port, port + count):
                        stack.enter_context(socket.socket()).bind((host, each))
            except OSError:
                continue
        return port

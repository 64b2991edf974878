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
# By nothing that a test or a plugin may seed: two processes would look for theirs in the same places.
_CHANCE: Final = random.SystemRandom()


def free_port(hosts: Sequence[str] = ("127.0.0.1",), count: int = 1) -> int:
    """The first of so many ports in a row on which nobody listens, at any of the hosts; given to nobody else, in any
    process of tests, as long as this process runs."""
    while True:
        port = _CHANCE.randrange(_LEAST, _FIRST_EPHEMERAL - count)
        wanted = range(port, port + count)
        with ExitStack() as stack:
            try:
                ours = [stack.enter_context(_reservation(each)) for each in wanted]
                for host in hosts:
                    for each in wanted:
                        stack.enter_context(socket.socket()).bind((host, each))
            except OSError:
                continue
            for reservation in ours:
                reservation.detach()
        return port


def _reservation(port: int) -> socket.socket:
    """Whoever holds it may use the port: a name of Linux's that is in no folder, and gone with its last holder. Raises
    `OSError` where another has it."""
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0trestle-tests-{port}")
    except OSError:
        reservation.close()
        raise
    return reservation

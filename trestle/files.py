"""How many files, and so connections, this process may have open at once."""

from __future__ import annotations

import contextlib
import resource
from typing import Final

_OTHERS: Final = 256
"""Files that are no such connection: of the interpreter, of channels to workers, of the database, of who scrapes."""


def connections(wanted: int) -> int:
    """As many of the wanted ones as this process may have. It raises its own bound (`ulimit -n`, often 1,024) where
    the system lets it; what is above that would be accepted and reset, or not accepted at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHERS
    if _fits(needed, soft):
        return wanted
    most = needed if _fits(needed, hard) else hard
    with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    return min(wanted, max(1, soft - min(_OTHERS, soft // 2)))


def _fits(needed: int, bound: int) -> bool:
    return bound == resource.RLIM_INFINITY or needed <= bound

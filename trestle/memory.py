"""How a service deals with its memory once it serves."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # of <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 4 * 1024 * 1024
_KEPT: Final = 8 * 1024 * 1024


def settle() -> None:
    """Call once all is made that lives as long as the process: collections need not look at that again; blocks of 4 MB
    or more go back to the system when they are freed, and so does what is free at the heap's end beyond 8 MB."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    # glibc raises its bound to the largest block that was ever freed (32 MB at most), takes large blocks from the heap
    # from then on, and keeps the heap up to its highest block in use. A lower bound costs more: the system clears each
    # page of a block anew, half of all that prompts of 1 MB cost. Other C libraries have no such call, nor need.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)

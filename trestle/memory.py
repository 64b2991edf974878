"""How a service deals with its memory once it serves."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1  # of <malloc.h>
_M_MMAP_THRESHOLD: Final = -3
_LARGE: Final = 32 * 1024 * 1024
"""Bytes of a block that is the system's own, the most that glibc takes for it."""
_KEPT: Final = 8 * 1024 * 1024
"""Bytes at the heap's end that are kept for what comes next."""
_LOOK: Final = 2.0
"""Seconds between two looks at what is free."""


class _Heap(ctypes.Structure):
    """`struct mallinfo2` of <malloc.h>. fordblks: bytes of the heap that are free."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    )


def settle() -> None:
    """Call once all is made that lives as long as the process, inside its running loop: collections need not look at
    that again, and from now on what is free for some seconds goes back to the system.

    Of itself glibc gives a block back at once, and the system clears each page of the next one anew, which is most of
    what large prompts cost; or it keeps the heap up to its highest block in use, however small that is.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return  # other C libraries have no such calls, nor need
    if not hasattr(libc, "mallinfo2"):  # glibc before 2.33, which does not tell what is free: all at once, then
        libc.mallopt(_M_MMAP_THRESHOLD, _KEPT // 2)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        return
    libc.mallinfo2.restype = _Heap
    libc.malloc_trim.argtypes = (ctypes.c_size_t,)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
    libc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGE)
    _look(asyncio.get_running_loop(), libc, 0)


def _look(loop: asyncio.AbstractEventLoop, libc: Any, known: int) -> None:
    """known: bytes that were free last time, and have been given back where they were many."""
    free = libc.mallinfo2().fordblks
    if free > 2 * _KEPT and free != known:
        libc.malloc_trim(_KEPT)
        free = libc.mallinfo2().fordblks
    loop.call_later(_LOOK, _look, loop, libc, free)

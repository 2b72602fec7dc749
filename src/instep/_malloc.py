"""Memory that the process keeps, instead of asking the system for it at every step."""

from __future__ import annotations

import ctypes
import sys


# <malloc.h> of glibc: numbers of mallopt, and what is set.
SETTINGS = {
    "M_MMAP_MAX": (-4, 0),  # no allocation is mapped by itself, and unmapped when it is freed
    "M_TRIM_THRESHOLD": (-1, -1),  # nothing at the end of the heap is given back
    "M_TOP_PAD": (-2, 64 << 20),  # and it grows by this many bytes at least
    "M_ARENA_MAX": (-8, 1),  # one heap for all threads
}


def keep_memory() -> bool:
    """Let this process keep freed memory, for steps on the CPU.

    XLA asks for the temporary memory of a step anew each time. The C library maps it and unmaps
    it again, so that the system hands out zeroed pages, which takes longer than much of what is
    computed in them. Kept, a step makes next to no page faults. PyTorch's steps gain too, less.

    Call it at the start of the process, before JAX or PyTorch is imported; the command line
    does. The process holds on to the most that it has ever used.

    Returns:
      Whether the C library is glibc on Linux, the one that takes these settings, and took them.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(number, value) == 1 for number, value in SETTINGS.values()])

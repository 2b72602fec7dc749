"""The memory of this process, as the kernel counts it. Bytes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from pathlib import Path


STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
FORGET_THE_PEAK = "5"  # see proc(5)


def resident() -> int:
    """What is resident now; where there is no /proc, the peak."""
    return _status("VmRSS")


def peak() -> int:
    """The most that was resident at once since ``forget_peak``, or since the start."""
    return _status("VmHWM")


def forget_peak() -> bool:
    """Hand free memory back and begin ``peak`` anew; False where the kernel cannot."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text(FORGET_THE_PEAK)
    except OSError:
        return False
    return True


def _status(field: str) -> int:
    if not STATUS.is_file():
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no {field}.")

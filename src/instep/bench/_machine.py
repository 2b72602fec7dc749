"""What was measured on, and from which sources."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any


THREADS = ("OMP_", "MKL_", "KMP_", "GOMP_")
FRAMEWORKS = ("XLA_", "JAX_", "TF_XLA_", "TORCH", "PYTORCH_", "CUDA_")
MEMORY = ("LD_PRELOAD", "MALLOC_", "GLIBC_TUNABLES")


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system, and the variables that change how fast it is."""
    told = hasattr(os, "sched_getaffinity")
    usable = len(os.sched_getaffinity(0)) if told else os.cpu_count()
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "variables": {
            name: re.sub(r"/\S*/", "", value)  # of a file its name; where it lies is nobody's
            for name, value in sorted(os.environ.items())
            if name.startswith(THREADS + FRAMEWORKS + MEMORY)
        },
    }


def load() -> float:
    """How many processes wanted to run, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def commit() -> str | None:
    """Of the sources of instep, ``-dirty`` with changes; None: not a working tree."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=Path(__file__).parent, timeout=60
        )
    except OSError:
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

"""The source files of Python's standard library, as bytes: real text, and always there."""

from __future__ import annotations

import sysconfig
import zlib
from functools import cache
from pathlib import Path

import numpy as np


HELD_OUT = 10  # one file in so many is for validation

# Other people's packages, tests, and what was made when this Python was built.
FOLDERS = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
GENERATED = ("_sysconfigdata", "config-")


def source_files() -> tuple[list[Path], list[Path]]:
    """The files for training and for validation, sorted by their place in the library.

    A file is for validation by the checksum of its place, so what other files there are does
    not matter.

    Raises:
      FileNotFoundError: this Python came without its sources.
    """
    root = Path(sysconfig.get_path("stdlib"))
    places = [path.relative_to(root) for path in root.rglob("*.py")]
    places = sorted((place for place in places if _is_taken(place)), key=Path.as_posix)
    if not places:
        raise FileNotFoundError(
            f"no Python source files in {root}. Install the standard library as .py files, not "
            f"as an archive."
        )
    train, validation = [], []
    for place in places:
        last = zlib.crc32(place.as_posix().encode()) % HELD_OUT == 0
        (validation if last else train).append(root / place)
    return train, validation


def _is_taken(place: Path) -> bool:
    return FOLDERS.isdisjoint(place.parts) and not any(
        part.startswith(GENERATED) for part in place.parts
    )


@cache
def source_bytes() -> tuple[np.ndarray, np.ndarray]:
    """All bytes for training and for validation, one file after another; uint8."""
    train, validation = source_files()
    return _joined(train), _joined(validation)


def _joined(paths: list[Path]) -> np.ndarray:
    found = np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8)
    return found  # read-only, since the bytes are

"""What processes hand each other: the leaves of the first steps, in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..parity._leaf import Leaf, Observation


class Steps(NamedTuple):
    """What was seen before the first step and after each, and how far rounding moves it."""

    seen: list[Observation]
    floors: list[dict[Leaf, float]]  # empty: not measured


def write(path: Path, seen: Sequence[Observation], floors: Sequence[dict[Leaf, float]] = ()):
    """Write an ``.npz``."""
    names = [[n, *leaf] for n, step in enumerate(seen) for leaf in step]
    kept = [[n, *leaf, floor] for n, step in enumerate(floors) for leaf, floor in step.items()]
    arrays = [value for step in seen for value in step.values()]
    manifest = json.dumps({"names": names, "floors": kept, "steps": len(seen)})
    np.savez(path, manifest, *arrays)


def read(path: Path) -> Steps:
    """What ``write`` wrote."""
    with np.load(path) as found:
        manifest = json.loads(str(found["arr_0"]))
        seen: list[Observation] = [{} for _ in range(manifest["steps"])]
        for i, (n, kind, name) in enumerate(manifest["names"], start=1):
            seen[n][Leaf(kind, name)] = found[f"arr_{i}"]
    floors: list[dict[Leaf, float]] = [{} for _ in seen]
    for n, kind, name, floor in manifest["floors"]:
        floors[n][Leaf(kind, name)] = floor
    return Steps(seen, floors)

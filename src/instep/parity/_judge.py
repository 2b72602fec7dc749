"""Judge every leaf at every step, and keep what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from ._leaf import Leaf, Observation
from ._tolerance import FLOOR_FACTOR, NOISE, RELATIVE


class Status(StrEnum):
    """What can be said of a leaf."""

    IN_STEP = "in step"
    DIVERGED = "diverged"
    NOISE = "noise"  # not judged: rounding decides it, in PyTorch alone
    NOT_FINITE = "not finite"  # not judged: NaN or infinity at the same places on both sides
    IDLE = "idle"  # not judged: never changed, or zero throughout


@dataclass(frozen=True)
class Measurement:
    """One leaf at one step."""

    step: int  # 0: before the first
    status: Status
    error: float  # max|jax - torch|; infinite if shapes or non-finite places differ
    floor: float  # largest change of PyTorch's own leaf under one ulp
    scale: float  # max|torch|; of a learning rate, the largest so far

    @property
    def bound(self) -> float:
        return max(RELATIVE * self.scale, FLOOR_FACTOR * self.floor)

    @property
    def ratio(self) -> float:
        """Error over bound: above 1 is a divergence."""
        if self.error == 0.0:
            return 0.0
        return self.error / self.bound if self.bound else np.inf


@dataclass
class Ledger:
    """All measurements of a walk, by leaf, and the leaves that only one side shows."""

    measurements: dict[Leaf, list[Measurement]] = field(default_factory=dict)
    unseen: dict[str, set[Leaf]] = field(default_factory=lambda: {"torch": set(), "jax": set()})
    _first: Observation = field(default_factory=dict)
    _excited: set[Leaf] = field(default_factory=set)
    _largest: dict[Leaf, float] = field(default_factory=dict)

    def judge(
        self,
        step: int,
        torch: Observation,
        moved: Sequence[Observation],
        jax: Observation,
    ) -> None:
        """Compare one step; ``moved`` are PyTorch's own steps under one ulp."""
        # PyTorch makes optimizer state lazily: before its first step there is none to see.
        self.unseen["jax"] |= torch.keys() - jax.keys()
        self.unseen["torch"] |= {
            leaf for leaf in jax.keys() - torch.keys() if step > 0 or leaf.kind != "state"
        }
        for leaf in torch.keys() & jax.keys():
            floor = max((distance(m[leaf], torch[leaf]) for m in moved), default=0.0)
            largest = self._largest_rate(leaf, torch[leaf])
            measurement = measure(step, torch[leaf], jax[leaf], floor, largest)
            self.measurements.setdefault(leaf, []).append(measurement)
            self._note_excitement(leaf, torch[leaf])

    def idle(self, leaf: Leaf) -> bool:
        """Whether nothing happened to ``leaf`` in the whole walk."""
        return leaf not in self._excited

    def _largest_rate(self, leaf: Leaf, value: np.ndarray) -> float:
        """The largest learning rate so far; 0 for other leaves, which stand for themselves."""
        if leaf.kind != "lr":
            return 0.0
        largest = max(self._largest.get(leaf, 0.0), abs(float(value)))
        self._largest[leaf] = largest
        return largest

    def _note_excitement(self, leaf: Leaf, value: np.ndarray) -> None:
        standing = leaf.kind in ("parameter", "buffer", "state")
        rest = self._first.setdefault(leaf, value) if standing else 0.0
        if leaf.kind == "lr" or np.any(value != rest):
            self._excited.add(leaf)


def measure(
    step: int, torch: np.ndarray, jax: np.ndarray, floor: float, at_least: float = 0.0
) -> Measurement:
    """Judge one leaf by the rule of ``_tolerance``; its scale is ``at_least`` that."""
    error = distance(jax, torch)
    finite = np.isfinite(torch)
    scale = float(np.max(np.abs(torch), initial=at_least, where=finite))
    if error == np.inf:
        status = Status.DIVERGED
    elif not finite.all():
        status = Status.NOT_FINITE
    elif not floor <= NOISE * scale:
        status = Status.NOISE
    elif error <= max(RELATIVE * scale, FLOOR_FACTOR * floor):
        status = Status.IN_STEP
    else:
        status = Status.DIVERGED
    return Measurement(step, status, error, floor, scale)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b|; infinite where shapes or the places of NaN and infinities differ."""
    if a.shape != b.shape:
        return np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(a[finite]).all():
        return np.inf
    return float(np.max(np.abs(a[finite] - b[finite]), initial=0.0))

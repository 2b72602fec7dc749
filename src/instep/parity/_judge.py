"""Judge every leaf at every step, and keep what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ._leaf import Leaf, Observation
from ._records import Measurement, Status
from ._tolerance import FLOOR_FACTOR, NOISE, RELATIVE


@dataclass
class Ledger:
    """All measurements of a walk, by leaf, and the leaves that only one side shows."""

    scheduled: bool = True  # whether a constant learning rate is one that was never exercised
    alone: frozenset[str] = frozenset()  # buffers said to have no counterpart on the JAX side
    measurements: dict[Leaf, list[Measurement]] = field(default_factory=dict)
    only_torch: set[Leaf] = field(default_factory=set)
    only_jax: set[Leaf] = field(default_factory=set)
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
        self.only_torch |= torch.keys() - jax.keys()
        # PyTorch makes optimizer state lazily: before its first step there is none to see.
        unknown = jax.keys() - torch.keys()
        self.only_jax |= {leaf for leaf in unknown if step > 0 or leaf.kind != "state"}
        for leaf, value in torch.items():
            if self._is_excited(leaf, torch):
                self._excited.add(leaf)
            if leaf in jax:
                floor = max((distance(m[leaf], value) for m in moved), default=0.0)
                largest = self._largest_so_far(leaf, value)
                measurement = measure(step, value, jax[leaf], floor, largest)
                self.measurements.setdefault(leaf, []).append(measurement)

    def idle(self, leaf: Leaf) -> bool:
        """Whether nothing happened to ``leaf`` in the whole walk, on PyTorch's side."""
        return leaf not in self._excited

    def _is_excited(self, leaf: Leaf, torch: Observation) -> bool:
        value = torch[leaf]
        if leaf.kind == "clipped gradient":
            return bool(np.any(value != torch.get(Leaf("gradient", leaf.name))))
        if leaf.kind in ("parameter", "buffer", "state", "lr"):
            if leaf.kind == "lr" and not self.scheduled:
                return True
            return bool(np.any(value != self._first.setdefault(leaf, value)))
        return bool(np.any(value != 0))

    def _largest_so_far(self, leaf: Leaf, value: np.ndarray) -> float:
        """Of a loss or a learning rate; 0 for other leaves, which stand for themselves."""
        if leaf.kind not in ("loss", "lr") or not np.isfinite(value):
            return 0.0
        self._largest[leaf] = max(self._largest.get(leaf, 0.0), abs(float(value)))
        return self._largest[leaf]


def measure(
    step: int, torch: np.ndarray, jax: np.ndarray, floor: float, at_least: float = 0.0
) -> Measurement:
    """Judge one leaf by the rule of ``_tolerance``; its scale is ``at_least`` that."""
    error = distance(jax, torch)
    finite = np.isfinite(torch)
    scale = float(np.max(np.abs(torch), initial=at_least, where=finite))
    bound = max(RELATIVE * scale, FLOOR_FACTOR * floor)
    if error == np.inf:
        status = Status.DIVERGED
    elif not finite.all():
        status = Status.NOT_FINITE
    elif not floor <= NOISE * scale:
        status = Status.NOISE
    elif error <= bound:
        status = Status.IN_STEP
    else:
        status = Status.DIVERGED
    return Measurement(step, status, error, floor, scale, bound)


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

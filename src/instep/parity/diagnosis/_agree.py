"""Whether a replayed part of the step is what JAX made, as strictly as the walk judges."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from .._floor import OneUlp
from .._judge import distance, grain
from .._leaf import Leaf, Observation
from .._records import Status
from .._tolerance import DRAWS, FLOOR_FACTOR, NOISE, RELATIVE
from ._evidence import Evidence
from ._replay import replay
from ._step import Step


# An error this many times what one unit in the last place explains needs no second look.
FAR = 1e4


def disagreeing(
    part: str, evidence: Evidence, step: Step, kinds: Collection[str]
) -> list[Leaf]:
    """The leaves of ``kinds`` in which this part of ``step`` is not what JAX made.

    The floor of a leaf is that of PyTorch's own step; if that does not do, the one of the
    changed step, from copies of it that round at random.
    """
    made = replay(part, evidence, step)
    beyond = errors(evidence, made, kinds)
    if not beyond or any(ratio > FAR for ratio in beyond.values()):
        return list(beyond)
    copies = [replay(part, evidence, step, OneUlp(seed)) for seed in range(DRAWS)]
    still = []
    for leaf in beyond:
        floor = max(distance(copy[leaf], made[leaf]) for copy in copies)
        largest = float(np.max(np.abs(made[leaf]), initial=0.0))
        noise = not floor <= NOISE * largest
        error = distance(evidence.seen[leaf], made[leaf])
        if not (noise or error <= FLOOR_FACTOR * floor):
            still.append(leaf)
    return still


def errors(evidence: Evidence, made: Observation, kinds: Collection[str]) -> dict[Leaf, float]:
    """Error over bound of every leaf that is beyond it."""
    beyond = {
        leaf: np.inf  # what both sides show is not there in this step
        for leaf in evidence.measured
        if leaf.kind in kinds and leaf in evidence.seen and leaf not in made
    }
    for leaf, value in made.items():
        if leaf.kind not in kinds or leaf not in evidence.seen:
            continue
        m = evidence.measured.get(leaf)
        floor = m.floor if m is not None else 0.0
        if m is not None and m.status is Status.NOISE:
            continue
        largest = float(np.max(np.abs(value), initial=0.0, where=np.isfinite(value)))
        bound = max(RELATIVE * largest, FLOOR_FACTOR * max(floor, grain(leaf, made)))
        if leaf.kind in ("loss", "lr") and m is not None:
            bound = max(bound, RELATIVE * m.scale)
        error = distance(evidence.seen[leaf], value)
        if not error <= bound:
            beyond[leaf] = error / bound if 0.0 < bound < np.inf else np.inf
    return beyond

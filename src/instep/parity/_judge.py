"""Judge every leaf at every step, and keep what was measured."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ._leaf import FOUND_INF, LOSS, SCHEDULED, STAGE, Leaf, Observation
from ._records import FREE, Measurement, Plan, Status
from ._tolerance import FLOOR_FACTOR, JUMP, NOISE, RELATIVE, ROUNDING_FACTOR, ROUNDING_ULPS


GRADIENTS = ("gradient", "gradient norm", "clipped gradient")
OPTIMIZER = ("state", "update", "parameter")


class Floor(NamedTuple):
    """How far rounding alone takes a leaf of PyTorch's own step."""

    error: float  # in float64 max|draw - right|, below the root mean square; may be infinite
    dtype: np.dtype | None  # of PyTorch's own; None: rounding was not measured


@dataclass
class Ledger:
    """All measurements of a walk, by leaf, and the leaves that only one side shows."""

    plan: Plan = FREE
    scheduled: bool = True  # whether a constant learning rate is one that was never exercised
    alone: frozenset[str] = frozenset()  # buffers said to have no counterpart on the JAX side
    measurements: dict[Leaf, list[Measurement]] = field(default_factory=dict)
    only_torch: set[Leaf] = field(default_factory=set)
    only_jax: set[Leaf] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)  # steps that PyTorch's scaler skipped
    _first: Observation = field(default_factory=dict)
    _excited: set[Leaf] = field(default_factory=set)
    _largest: dict[Leaf, float] = field(default_factory=dict)
    _size: dict[Leaf, int] = field(default_factory=dict)

    def judge(
        self,
        step: int,
        right: Observation,
        draws: Iterable[Observation],
        jax: Observation,
        noise: Collection[Leaf] = (),
    ) -> None:
        """Compare one step.

        Args:
          step: its number; 0: what stands before the first.
          right: PyTorch's step in float64.
          draws: PyTorch's own steps that rounding sets apart from ``right``.
          jax: the step that is judged.
          noise: leaves that are known to be decided by rounding.
        """
        self.judge_by(step, right, floors_of(self.plan, right, draws), jax, noise)

    def judge_by(
        self,
        step: int,
        right: Observation,
        floors: Mapping[Leaf, Floor],
        jax: Observation,
        noise: Collection[Leaf] = (),
    ) -> None:
        """``judge``, where of the draws only their floors are known."""
        if right.get(FOUND_INF, 0):
            self.skipped.add(step)
        self.only_torch |= right.keys() - jax.keys()
        # PyTorch makes optimizer state lazily: before its first step there is none to see.
        unknown = jax.keys() - right.keys()
        self.only_jax |= {leaf for leaf in unknown if step > 0 or leaf.kind != "state"}
        for leaf, value in right.items():
            if self._is_excited(step, leaf, right):
                self._excited.add(leaf)
            if leaf not in jax:
                continue
            largest = self._largest_so_far(leaf, value)
            if self.plan.rounding:
                at_least = largest if leaf.kind in SCHEDULED else 0.0  # a loss: in its floor
                m = measure_by(step, value, jax[leaf], floors[leaf], at_least)
            else:
                floor = max(floors[leaf].error, grain(leaf, right))
                m = measure(step, value, jax[leaf], floor, largest)
            if leaf in noise and m.judged and m.error <= max(m.floor, m.bound) / NOISE:
                m = replace(m, status=Status.NOISE)
            if leaf.kind in GRADIENTS and step in self.skipped and self.plan.rounding:
                # Rounding decides which numbers overflow; whether any did is judged alone.
                skips = bool(jax.get(FOUND_INF, 0))
                m = replace(m, status=Status.NOT_FINITE) if skips else m
            self.measurements.setdefault(leaf, []).append(m)
            self._size[leaf] = value.size

    def at(self, step: int) -> dict[Leaf, Measurement]:
        """How each leaf was judged at ``step``, the last."""
        last = {leaf: measured[-1] for leaf, measured in self.measurements.items()}
        return {leaf: m for leaf, m in last.items() if m.step == step}

    def beyond(self, step: int, kinds: Collection[str] = STAGE) -> list[Leaf]:
        """The leaves of these kinds that diverge at ``step`` by a finite error."""
        return [
            leaf
            for leaf, (*_, m) in self.measurements.items()
            if leaf.kind in kinds
            and (m.step, m.status) == (step, Status.DIVERGED)
            and m.error < np.inf
        ]

    def look_again(self, step: int, right: Observation, look: Observation) -> None:
        """Let what diverges be as far off as ``look``, if that has jumped as JAX has.

        Args:
          step: the last that was judged.
          right: PyTorch's step in float64.
          look: a step of PyTorch's own that rounds as coarsely as JAX may.
        """

        def jumped(leaf: Leaf) -> bool:
            m, jump = self.measurements[leaf][-1], rms_distance(look[leaf], right[leaf])
            return m.bound + jump >= m.error and jump > JUMP * m.bound

        if not any(jumped(leaf) for leaf in self.beyond(step, ["gradient"])):
            return
        for leaf in self.beyond(step):
            m, value = self.measurements[leaf][-1], right[leaf]
            bound = m.bound + rms_distance(look[leaf], value)
            noise = m.error <= bound and not bound < rms_distance(np.zeros_like(value), value)
            status = _status(value, m.error, bound, noise)
            self.measurements[leaf][-1] = replace(m, bound=bound, status=status)

    def lucky(self, step: int) -> list[Leaf]:
        """The scalars that diverge at ``step``: PyTorch's few draws may all have been exact."""
        return [x for x in self.beyond(step) if self._size[x] == 1 and x.kind != "scaler"]

    def draw_again(self, step: int, right: Observation, draw: Observation) -> None:
        """Let ``draw`` count among PyTorch's own draws, of the scalars that diverge.

        Args:
          step: the last that was judged.
          right: PyTorch's step in float64.
          draw: one more step of PyTorch's own in this precision.
        """
        for leaf in self.lucky(step):
            m, value = self.measurements[leaf][-1], right[leaf]
            floor = max(m.floor, rms_distance(draw[leaf], value))
            bound = m.bound + ROUNDING_FACTOR * (floor - m.floor)
            noise = m.error <= bound and not bound < max(
                rms_distance(np.zeros_like(value), value), self._largest.get(leaf, 0.0)
            )
            status = _status(value, m.error, bound, noise)
            self.measurements[leaf][-1] = replace(m, bound=bound, floor=floor, status=status)

    def widen(self, step: int, right: Observation, look: Observation) -> None:
        """Let what the optimizer made be as far off as ``look``, times the usual factor.

        Args:
          step: the last that was judged.
          right: PyTorch's step in float64.
          look: a step of PyTorch's own that rounds as coarsely as JAX may.
        """
        for leaf in self.beyond(step, OPTIMIZER):
            m, value = self.measurements[leaf][-1], right[leaf]
            if self.plan.rounding:
                floor = rms_distance(look[leaf], value)
                bound = m.bound + floor
                noise = m.error <= bound and not bound < rms_distance(
                    np.zeros_like(value), value
                )
            else:
                floor = max(m.floor, distance(look[leaf], value))
                bound = max(m.bound, FLOOR_FACTOR * floor)
                noise = not floor <= NOISE * m.scale and m.error <= floor / NOISE
            status = _status(value, m.error, bound, noise)
            self.measurements[leaf][-1] = replace(m, bound=bound, floor=floor, status=status)

    def noise(self, step: int) -> set[Leaf]:
        """The leaves that rounding decides at ``step``, and what is made of such a gradient."""
        found = {
            leaf
            for leaf, measured in self.measurements.items()
            if measured[-1].step == step and measured[-1].status is Status.NOISE
        }
        parameters = {leaf.name for leaf in found if leaf.kind == "gradient"}
        return found | {
            leaf
            for leaf in self.measurements
            if leaf.kind != "scaler"
            and (leaf.name.rpartition(".")[0] if leaf.kind == "state" else leaf.name)
            in parameters
        }

    @property
    def diverged(self) -> bool:
        """Whether anything has, at any step."""
        judged = (m.status for measured in self.measurements.values() for m in measured)
        return Status.DIVERGED in judged

    @property
    def began_elsewhere(self) -> bool:
        """Whether what stands before the first step is another on the two sides."""
        return any(
            (m.step, m.status) == (0, Status.DIVERGED)
            for leaf, measured in self.measurements.items()
            if leaf.kind in ("parameter", "buffer", "state")
            for m in measured[:1]
        )

    @property
    def over(self) -> bool:
        """Whether rounding decides the float64 loss, or it is not finite: so it goes on."""
        if self.plan.rounding or not self.plan.judged:
            return False
        measured = self.measurements.get(LOSS, [])
        if not measured or measured[-1].step in self.skipped:
            return False
        return not measured[-1].judged

    def idle(self, leaf: Leaf) -> bool:
        """Whether nothing happened to ``leaf`` in the whole walk, on PyTorch's side."""
        return leaf not in self._excited

    def _is_excited(self, step: int, leaf: Leaf, torch: Observation) -> bool:
        value = torch[leaf]
        if leaf.kind == "clipped gradient":
            return bool(np.any(value != torch.get(Leaf("gradient", leaf.name))))
        if leaf.kind in ("parameter", "buffer", "state", "scaler", "plateau", *SCHEDULED):
            if leaf.kind in SCHEDULED and not self.scheduled:
                return True
            # What PyTorch makes at its first step was not there before: it was zero.
            first = value if step == 0 else np.zeros_like(value)
            return bool(np.any(value != self._first.setdefault(leaf, first)))
        return bool(np.any(value != 0))

    def _largest_so_far(self, leaf: Leaf, value: np.ndarray) -> float:
        """Of a loss or a learning rate; 0 for other leaves, which stand for themselves."""
        if leaf.kind not in ("loss", *SCHEDULED) or not np.isfinite(value):
            return 0.0
        self._largest[leaf] = max(self._largest.get(leaf, 0.0), abs(float(value)))
        return self._largest[leaf]


def floors_of(
    plan: Plan, right: Observation, draws: Iterable[Observation]
) -> dict[Leaf, Floor]:
    """How far the draws are from ``right``, for every leaf that all of them have.

    One draw at a time: they may be made while they are looked at.
    """
    apart = rms_distance if plan.rounding else distance
    floors = dict.fromkeys(right, Floor(0.0, None))
    for draw in draws:
        floors = {
            leaf: Floor(
                max(floor.error, apart(draw[leaf], right[leaf])),
                floor.dtype or draw[leaf].dtype,
            )
            for leaf, floor in floors.items()
            if leaf in draw
        }
    return floors


def _floor(
    apart: Callable[[np.ndarray, np.ndarray], float], right: np.ndarray, own: Sequence
) -> Floor:
    error = max((apart(value, right) for value in own), default=0.0)
    return Floor(error, own[0].dtype if own else None)


def measure(
    step: int, torch: np.ndarray, jax: np.ndarray, floor: float, at_least: float = 0.0
) -> Measurement:
    """Judge one leaf by its semantics; its scale is ``at_least`` that."""
    error = distance(jax, torch)
    scale = _scale(torch, at_least)
    bound = max(RELATIVE * scale, FLOOR_FACTOR * floor)
    noise = not floor <= NOISE * scale and error <= floor / NOISE
    return Measurement(step, _status(torch, error, bound, noise), error, floor, scale, bound)


def measure_rounding(
    step: int,
    oracle: np.ndarray,
    jax: np.ndarray,
    own: Sequence[np.ndarray],
    at_least: float = 0.0,
) -> Measurement:
    """Judge one leaf by PyTorch's own rounding; ``own`` are its values of that leaf."""
    return measure_by(step, oracle, jax, _floor(rms_distance, oracle, own), at_least)


def measure_by(
    step: int, oracle: np.ndarray, jax: np.ndarray, own: Floor, at_least: float = 0.0
) -> Measurement:
    """``measure_rounding``, where of PyTorch's own values only their floor is known."""
    error, floor = rms_distance(jax, oracle), own.error
    scale = _scale(oracle, at_least)
    like = jax if own.dtype is None else np.empty((), own.dtype)
    bound = ROUNDING_FACTOR * floor + ROUNDING_ULPS * ulp(scale, like)
    rms = rms_distance(np.zeros_like(oracle), np.where(np.isfinite(oracle), oracle, 0))
    noise = bound > 0 and error <= bound and not bound < max(rms, at_least)
    return Measurement(step, _status(oracle, error, bound, noise), error, floor, scale, bound)


def grain(leaf: Leaf, right: Observation) -> float:
    """One ulp of the parameter, of an update: no difference of two of them is finer."""
    parameter = right.get(Leaf("parameter", leaf.name)) if leaf.kind == "update" else None
    if parameter is None:
        return 0.0
    largest = np.max(np.abs(parameter), initial=0.0)
    return float(np.spacing(largest)) if np.isfinite(largest) else 0.0


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """max|a - b|; infinite where shapes or the places of NaN and infinities differ."""
    difference = _difference(a, b)
    return np.inf if difference is None else float(np.max(difference, initial=0.0))


def rms_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The root mean square of a - b; infinite as ``distance`` is."""
    difference = _difference(a, b)
    if difference is None:
        return np.inf
    return float(np.sqrt(np.mean(difference**2))) if difference.size else 0.0


def ulp(value: float, like: np.ndarray) -> float:
    """One unit in the last place of ``value`` in the dtype of ``like``.

    At least the smallest normal number of float32 and bfloat16: XLA flushes what is below.
    Zero for integers. A float64 is a number that PyTorch keeps on the host: it counts as
    float32, in which JAX keeps it.
    """
    if not jnp.issubdtype(like.dtype, jnp.floating) or value == 0.0:
        return 0.0
    dtype = np.dtype(np.float32) if like.dtype == np.float64 else like.dtype
    info = jnp.finfo(dtype)
    spacing = float(info.eps) * 2.0 ** np.floor(np.log2(value))
    flushed = dtype != np.float16
    return max(spacing, float(info.tiny if flushed else info.smallest_subnormal))


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """|a - b| where both are finite; None if shapes or non-finite places differ."""
    if a.shape != b.shape:
        return None
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return None
    if not np.isfinite(a[finite]).all():
        return None
    return np.abs(a[finite] - b[finite])


def _scale(value: np.ndarray, at_least: float) -> float:
    return float(np.max(np.abs(value), initial=at_least, where=np.isfinite(value)))


def _status(right: np.ndarray, error: float, bound: float, noise: bool) -> Status:
    if error == np.inf:
        return Status.DIVERGED
    if noise:
        return Status.NOISE
    if error > bound:
        return Status.DIVERGED
    return Status.IN_STEP if np.isfinite(right).all() else Status.NOT_FINITE

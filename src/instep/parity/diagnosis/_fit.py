"""The value that a setting must have had, told by the numbers that JAX made with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from .._leaf import Leaf, Observation
from ._evidence import Evidence
from ._mistake import Dial, Variant


ROUNDS = 14  # of the secant method, at most
STUCK = 3  # rounds after which the distance must have fallen
NEAR = 1e-3  # the first other value, relative to PyTorch's own
ROUNDING = 2.0**-22  # PyTorch's own value, made in float32, is no other setting
DIGITS = (2, 3, 6, 17)  # people write round numbers


def fitted(
    dial: Dial,
    replayed: Callable[[Variant], Observation],
    evidence: Evidence,
    wrong: list[Leaf],
) -> Iterator[Variant]:
    """The settings of ``dial`` with which PyTorch's step comes nearest to JAX's.

    Gauss-Newton in one unknown, with the slope of the last two values:

    .. math::
        v \\leftarrow v - \\frac{\\langle r, r' \\rangle}{\\langle r', r' \\rangle}, \\qquad
        r(v) = \\text{replayed}(v) - \\text{JAX's}

    Args:
      dial: what is turned.
      replayed: what PyTorch makes of the step with a setting.
      evidence: of the step that JAX took.
      wrong: the leaves that are compared.

    Yields:
      The value it ends at, rounded to ever more digits; nothing if it leads nowhere.
    """
    value = _solved(lambda v: off_by(replayed(dial.turn(v)), evidence.seen, wrong), dial.own)
    if value is not None and abs(value - dial.own) > ROUNDING * abs(dial.own):
        for v in dict.fromkeys(float(f"{value:.{digits}g}") for digits in DIGITS):
            yield replace(dial.turn(v), told=True)


def _solved(off: Callable[[float], np.ndarray | None], own: float) -> float | None:
    """Where ``off`` is nearest to zero; None: nowhere near, or it does not depend on it."""
    v, w = own, own + NEAR * (abs(own) or 1.0)
    r, s = off(v), off(w)
    if r is None or s is None:
        return None
    start = least = _squared(r)
    for n in range(ROUNDS):
        slope = (s - r) / (w - v)
        steep = float(slope @ slope)
        if not 0.0 < steep < np.inf:
            return None
        v, r, w = w, s, w - float(s @ slope) / steep
        s = off(w)
        if s is None or w == v:
            break
        if _squared(s) >= least and n:  # rounding decides from here on, or it leads nowhere
            break
        least = min(least, _squared(s))
        if n == STUCK and not least < start / 4:
            return None
    return v if s is None or _squared(r) <= _squared(s) else w


def _squared(r: np.ndarray) -> float:
    """Its square; infinite, if a number in it is not finite."""
    square = float(r @ r)
    return square if np.isfinite(square) else np.inf


def off_by(made: Observation, seen: Observation, wrong: Sequence[Leaf]) -> np.ndarray | None:
    """The differences of all leaves, each over its own maximum; None: one is not there."""
    parts = []
    for leaf in wrong:
        if leaf not in made or made[leaf].shape != seen[leaf].shape:
            return None
        largest = float(np.max(np.abs(seen[leaf]), initial=0.0)) or 1.0
        parts.append((made[leaf] - seen[leaf]).ravel().astype(np.float64) / largest)
    return np.concatenate(parts)

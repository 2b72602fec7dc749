"""Whether two contenders do the same work, by parity's own rule; nothing else is timed.

Every contender takes its first steps in float64, from the same weights and on the same batches,
with the code that is timed later: of ``instep-lowered`` the step inside of it, of ``flax`` its
``train_step`` without ``nnx.jit``, of ``torch-compile`` the model before it is compiled. Each
loss, parameter and buffer must agree with PyTorch's own steps (for a ``JaxLoop`` alone: with
instep's) as ``parity._tolerance`` says, the floor measured on copies that rounding moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._errors import RequestError
from ..parity._judge import measure
from ..parity._leaf import LOSS, STAGE, Leaf, Observation
from ..parity._records import Measurement, Status
from ..parity._words import relative


class UnequalWorkError(RequestError):
    """Two contenders would not do the same work; the message names the first divergence."""


class Steps(NamedTuple):
    """What was seen before the first step and after each, and how far rounding moves it."""

    seen: list[Observation]
    floors: list[dict[Leaf, float]]


def check_halves(target: str, parity: Mapping[str, Any]) -> None:
    """Raise unless ``parity.run`` found the halves of TARGET in step.

    Raises:
      UnequalWorkError: with what parity says of where, how far and why.
    """
    if parity["in_step"]:
        return
    lines = [f"  {label:<10} {text}" for label, text in parity["told"]]
    raise UnequalWorkError(
        "\n".join(
            [
                f"{target} is not timed: its halves are not in step. {parity['reason']}",
                *lines,
                f"  look       instep parity {target} --steps {parity['steps']}",
            ]
        )
    )


def check_steps(name: str, reference: Steps, found: list[Observation]) -> int:
    """Raise unless ``found`` agrees with ``reference``; how many leaves were judged.

    Raises:
      UnequalWorkError: a leaf diverges or is not shown, a loss is not finite, or rounding
        decides it.
    """
    largest, judged = 0.0, 0
    for n, right in enumerate(reference.seen):
        for leaf in sorted(right, key=lambda x: (list(STAGE).index(x.kind), x.name)):
            if leaf not in found[n]:
                if leaf.kind == "buffer" and not _is_trained(leaf, right, reference.seen[0]):
                    continue
                raise UnequalWorkError(
                    f"{name} is not timed: it does not show the {_said(leaf)} at step {n}."
                )
            value = right[leaf]
            if leaf == LOSS:
                largest = max(largest, abs(float(value)))
            floor = reference.floors[n].get(leaf, 0.0)
            at_least = largest if leaf == LOSS else 0.0
            m = measure(n, np.asarray(value), found[n][leaf], floor, at_least)
            if m.status in (Status.DIVERGED, Status.NOT_FINITE):
                raise UnequalWorkError(_apart(name, leaf, m))
            if m.status is Status.NOISE and leaf == LOSS:
                raise UnequalWorkError(
                    f"{name} is not timed: rounding alone decides the loss at step {n}, so "
                    f"nothing is shown. Take fewer steps with --check-steps."
                )
            judged += m.judged
    return judged


def _is_trained(leaf: Leaf, right: Observation, first: Observation) -> bool:
    """Not so ``num_batches_tracked`` and constants, which JAX halves may lack."""
    value = np.asarray(right[leaf])
    return value.dtype.kind == "f" and not np.array_equal(value, first.get(leaf, np.nan))


def _apart(name: str, leaf: Leaf, m: Measurement) -> str:
    if m.status is Status.NOT_FINITE:
        return f"{name} is not timed: the {_said(leaf)} is not finite at step {m.step}."
    where = "before the first step" if m.step == 0 else f"at step {m.step}"
    why = f" Stage {STAGE[leaf.kind]}."
    if m.step == 0:
        why = " TARGET gave it other weights: seed what it draws."
    elif leaf == LOSS and m.step == 1:
        why += " A model that draws at random, as with dropout, cannot be compared."
    return (
        f"{name} is not timed: it does other work. In float64 {where} the {_said(leaf)} is off "
        f"by {relative(m.error, m)} of its maximum, {m.ratio:.2g} times the bound (floor "
        f"{relative(m.floor, m)}).{why}"
    )


def _said(leaf: Leaf) -> str:
    return leaf.kind if leaf.kind == leaf.name else f"{leaf.kind} {leaf.name}"

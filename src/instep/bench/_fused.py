"""The contenders that are instep's own: the fused step, and that of a lowered loop."""

from __future__ import annotations

from typing import Any

from .._loop import initial_state, train_step
from ._contender import Contender
from ._jax_side import JaxSide, contender, jax_side
from ._problem import Problem


def fused(problem: Problem, option: str) -> Contender:
    """``make_train_step`` of the JAX half, as a user calls it."""
    del option
    return _of(jax_side(problem), {})


def lowered(problem: Problem, option: str) -> Contender:
    """``from_torch`` of the PyTorch half."""
    del option
    return _of(jax_side(problem, lowered=True), {"forward": "lowered by from_torch"})


def _of(side: JaxSide, notes: dict[str, str]) -> Contender:
    as_used = train_step(side.loop)
    jitted = side.jit(as_used) if side.double else as_used

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        state, metrics = jitted(state, batch)
        return state, metrics.loss

    return contender(
        side, initial_state(side.loop), step, lambda state: (state.params, state.buffers), notes
    )

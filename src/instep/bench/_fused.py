"""The contenders that are instep's own: the fused step, and that of a lowered loop."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._batch import joined
from .._loop import initial_state, train_step
from ._contender import Contender
from ._jax_side import JaxSide, contender, jax_side
from ._problem import Problem


def fused(problem: Problem, option: str) -> Contender:
    """``make_train_step`` of the JAX half, or ``from_torch`` where there is none."""
    if problem.torch_loop is not None and not problem.is_pair:
        return lowered(problem, option)
    side = jax_side(problem)
    return _of(side, initial_state(side.loop), train_step(side.loop), side.batches, {})


def lowered(problem: Problem, option: str) -> Contender:
    """``from_torch`` of the PyTorch half, as a user calls it; in the check the step inside."""
    del option
    notes = {"forward": "lowered by from_torch"}
    if problem.double:
        side = jax_side(problem, lowered=True)
        return _of(side, initial_state(side.loop), train_step(side.loop), side.batches, notes)
    from ..bridge._from_torch import from_torch

    loop = problem.reference()
    step, state = from_torch(loop)
    return _of(None, state, step, _torch_batches(problem, loop.accumulate), notes)


def _torch_batches(problem: Problem, accumulate: int) -> list[Any]:
    """The batches of the PyTorch half in its own structure, as arrays on the device."""
    from ..bridge._tensors import to_numpy

    def placed(x: Any) -> Any:
        return jnp.asarray(x) if isinstance(x, np.ndarray) else x

    stacked = [
        joined([to_numpy(x) for x in window], accumulate) for window in problem.windows()
    ]
    return jax.tree.map(placed, stacked)


def _of(
    side: JaxSide | None, state: Any, as_used: Any, batches: list[Any], notes: dict[str, str]
) -> Contender:
    jitted = side.jit(as_used) if side is not None and side.double else as_used

    def step(state: Any, batch: Any) -> tuple[Any, Any]:
        state, metrics = jitted(state, batch)
        return state, metrics.loss

    return contender(
        side, state, step, lambda state: (state.params, state.buffers), notes, batches
    )

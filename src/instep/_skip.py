"""What a step that is skipped leaves as it was, and what goes on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from ._state import PyTree
from .optim import Hyperparams


# The clocks of schedules: in PyTorch a scheduler does not know that a step was skipped.
_CLOCKS = (Hyperparams, optax.ScaleByScheduleState)
_INJECTED = optax.InjectStatefulHyperparamsState


def hold(skipped: jax.Array, old: PyTree, new: PyTree) -> PyTree:
    """``old`` where ``skipped``, else ``new``; schedules advance either way."""

    def choose(n: Any, o: Any) -> Any:
        if isinstance(n, _CLOCKS):
            return n
        if isinstance(n, _INJECTED):
            return n._replace(inner_state=hold(skipped, o.inner_state, n.inner_state))
        return jnp.where(skipped, o, n)

    known = (*_CLOCKS, _INJECTED)
    return jax.tree.map(choose, new, old, is_leaf=lambda x: isinstance(x, known))

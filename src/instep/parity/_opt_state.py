"""Optimizer state on the JAX side, under PyTorch's names."""

from __future__ import annotations

from typing import Any

import jax
import optax

from ..optim import Hyperparams, OptimizerState


PyTree = Any

# optax's record -> {PyTorch's name: field}
_OPTAX: dict[type, dict[str, str]] = {
    optax.ScaleByAdamState: {"step": "count", "exp_avg": "mu", "exp_avg_sq": "nu"},
    optax.TraceState: {"momentum_buffer": "trace"},
    optax.ScaleByRmsState: {"square_avg": "nu"},
}

# instep's slots that PyTorch keeps as the presence of another one.
_WITHOUT_TENSOR = {"started"}


def slots(opt_state: PyTree) -> dict[str, PyTree]:
    """``{"exp_avg": tree like params, "step": scalar, ...}`` of every record that is known."""
    known = (OptimizerState, *_OPTAX)
    found: dict[str, PyTree] = {}
    for record in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, known)):
        if isinstance(record, OptimizerState):
            found |= {n: t for n, t in record.slots.items() if n not in _WITHOUT_TENSOR}
        elif type(record) in _OPTAX:
            fields = _OPTAX[type(record)]
            found |= {name: getattr(record, field) for name, field in fields.items()}
    return found


def learning_rates(opt_state: PyTree) -> list[jax.Array]:
    """The learning rate of each instep transformation in ``opt_state``; optax hides its own."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Hyperparams))
    return [x.values["lr"] for x in leaves if isinstance(x, Hyperparams)]

"""Optimizer state on the JAX side, under PyTorch's names."""

from __future__ import annotations

from typing import Any

import jax
import optax

from .._state import PyTree
from .._trees import named_leaves
from ..optim import Hyperparams, OptimizerState


# optax's record -> {PyTorch's name: field}
_OPTAX: dict[type, dict[str, str]] = {
    optax.ScaleByAdamState: {"step": "count", "exp_avg": "mu", "exp_avg_sq": "nu"},
    optax.TraceState: {"momentum_buffer": "trace"},
    optax.ScaleByRmsState: {"square_avg": "nu"},
}

# instep's slots that PyTorch keeps as the presence of another one.
_WITHOUT_TENSOR = {"started"}


def slots(opt_state: PyTree) -> dict[tuple[str, str], Any]:
    """``{(parameter, slot): array}`` of every record that is known, by JAX leaf name.

    Several records (``optax.partition``, ``masked``) each hold their own parameters. A scalar
    of a whole record, such as optax's count, counts for each of its parameters.
    """
    known = (OptimizerState, *_OPTAX)
    found: dict[tuple[str, str], Any] = {}
    for record in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, known)):
        if not isinstance(record, known):
            continue
        trees = {slot: named_leaves(tree) for slot, tree in _trees(record).items()}
        parameters = {name for leaves in trees.values() for name in leaves if name}
        for slot, leaves in trees.items():
            whole = leaves.get("")
            for name in parameters if whole is not None else leaves:
                found[name, slot] = leaves.get(name, whole)
    return found


def learning_rate(opt_state: PyTree) -> jax.Array | None:
    """The rate of the one instep transformation inside; None if there are none or several."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Hyperparams))
    rates = [x.values["lr"] for x in leaves if isinstance(x, Hyperparams)]
    return rates[0] if len(rates) == 1 else None


def _trees(record: Any) -> dict[str, PyTree]:
    if isinstance(record, OptimizerState):
        return {n: tree for n, tree in record.slots.items() if n not in _WITHOUT_TENSOR}
    return {slot: getattr(record, field) for slot, field in _OPTAX[type(record)].items()}

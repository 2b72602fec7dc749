"""Optimizer state on the JAX side, under PyTorch's names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from .._state import PyTree
from .._trees import named_leaves
from ..optim import Hyperparams, OptimizerState, ParamGroupsState


# optax's record -> {PyTorch's name: field}
_OPTAX: dict[type, dict[str, str]] = {
    optax.ScaleByAdamState: {"step": "count", "exp_avg": "mu", "exp_avg_sq": "nu"},
    optax.TraceState: {"momentum_buffer": "trace"},
    optax.ScaleByRmsState: {"square_avg": "nu"},
    optax.ScaleByRssState: {"sum": "sum_of_squares"},
}

_HAVE_GROUPS = (Hyperparams, ParamGroupsState)

# What torch.optim.LBFGS and our LBFGSState call alike: all parameters end to end, rows of
# these, and numbers.
VECTORS = ("d", "prev_flat_grad")
HISTORIES = ("old_dirs", "old_stps")
NUMBERS = ("t", "H_diag", "prev_loss")
COUNTS = ("func_evals", "n_iter")

# A slot of ours that PyTorch keeps as the presence of another one.
STARTED = "started"


def slots(opt_state: PyTree) -> dict[tuple[str, str], Any]:
    """``{(parameter, slot): array}`` of every record that is known, by JAX leaf name.

    Several records (``optax.partition``, ``masked``) each hold their own parameters. A scalar
    of a whole record, such as optax's count, counts for each of its parameters. Where two
    records keep the same slot of a parameter, neither is PyTorch's.
    """
    known = (OptimizerState, *_OPTAX)
    found: dict[tuple[str, str], Any] = {}
    several: set[tuple[str, str]] = set()
    for record in jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, known)):
        if not isinstance(record, known):
            continue
        trees = {slot: named_leaves(tree) for slot, tree in _trees(record).items()}
        parameters = {name for leaves in trees.values() for name in leaves if name}
        for slot, leaves in trees.items():
            whole = leaves.get("")
            for name in parameters if whole is not None else leaves:
                several |= {(name, slot)} & found.keys()
                found[name, slot] = leaves.get(name, whole)
    return {place: value for place, value in found.items() if place not in several}


def write_slots(opt_state: PyTree, values: Mapping[tuple[str, str], Any]) -> PyTree:
    """``opt_state`` with the slots of ``values``, on the host; dtypes and the rest stay."""

    def write(tree: PyTree, slot: str) -> PyTree:
        leaves = []
        for name, leaf in named_leaves(tree).items():
            value = np.asarray(values.get((name, slot), leaf), leaf.dtype)
            if value.shape != np.shape(leaf):
                raise ValueError(
                    f"{slot} of {name} has the shape {value.shape} where the state of tx has "
                    f"{np.shape(leaf)}."
                )
            leaves.append(value)
        return jax.tree.unflatten(jax.tree.structure(tree), leaves)

    def rewrite(record: Any) -> Any:
        if isinstance(record, OptimizerState):
            slots = {slot: write(tree, slot) for slot, tree in record.slots.items()}
            return replace(record, slots=slots)
        if type(record) in _OPTAX:
            fields = _OPTAX[type(record)].items()
            return record._replace(**{f: write(getattr(record, f), s) for s, f in fields})
        return record

    known = (OptimizerState, *_OPTAX)
    return jax.tree.map(rewrite, opt_state, is_leaf=lambda x: isinstance(x, known))


def group_hyperparams(opt_state: PyTree) -> list[dict[str, jax.Array]]:
    """The current values of each parameter group; none where they have no order."""
    parts = jax.tree.leaves(opt_state, is_leaf=lambda x: hasattr(x, "inner_states"))
    if any(len(getattr(part, "inner_states", ())) > 1 for part in parts):
        return []
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, _HAVE_GROUPS))
    found: list[Any] = [x for x in leaves if isinstance(x, _HAVE_GROUPS)]
    if len(found) != 1:
        return []
    if isinstance(found[0], ParamGroupsState):
        return [values for part in found[0].groups for values in group_hyperparams(part)]
    return [found[0].values]


def _trees(record: Any) -> dict[str, PyTree]:
    if isinstance(record, OptimizerState):
        return record.slots
    return {slot: getattr(record, field) for slot, field in _OPTAX[type(record)].items()}

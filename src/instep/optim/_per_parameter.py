"""From the rule for one parameter, as torch.optim writes it, to a transformation of trees."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._dtypes import wide
from .._state import PyTree
from . import _hyperparams
from ._hyperparams import Hyperparams


Slots = dict[str, jax.Array]
Init = Callable[[jax.Array], Slots]
Update = Callable[
    [jax.Array, jax.Array, Slots, Mapping[str, jax.Array]], tuple[jax.Array, Slots]
]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OptimizerState:
    """``torch.optim.Optimizer.state``, by name instead of by parameter.

    ``slots["exp_avg"]`` is a tree like params; the names are PyTorch's.
    """

    hyperparams: Hyperparams
    slots: dict[str, PyTree]


def per_parameter(
    init: Init, update: Update, given: Mapping[str, Any]
) -> optax.GradientTransformation:
    """Lift a rule for one parameter to pytrees.

    Args:
      init: ``p -> slots``, the state PyTorch keeps for one parameter.
      update: ``(p, g, slots, hyper) -> (new_p, new_slots)``, PyTorch's
        ``_single_tensor_*`` in its order of operations.
      given: hyperparameters that are data: a float, or a schedule of the count.

    Returns:
      A transformation whose updates are ``new_p - p``. A gradient that is None leaves its
      parameter and its slots alone, as a ``p.grad`` of None does: no decay, no step.
    """

    def init_fn(params: PyTree) -> Any:
        leaves, treedef = jax.tree.flatten(params)
        slots = _by_name([init(p) for p in leaves], treedef)
        return OptimizerState(_hyperparams.init(given), slots)

    def update_fn(updates: PyTree, state: Any, params: PyTree = None) -> Any:
        if params is None:
            raise ValueError(
                "instep.optim computes new parameters, so it needs the old ones: call "
                "tx.update(grads, opt_state, params)."
            )
        leaves, treedef = jax.tree.flatten(params)
        grads = treedef.flatten_up_to(updates)
        slots = _by_leaf(state.slots, treedef)
        values = state.hyperparams.values
        new_leaves, new_slots = [], []
        for p, g, s in zip(leaves, grads, slots, strict=True):
            new_p, new_s = (p, s) if g is None else _in_wide(update, p, g, s, values)
            new_leaves.append(new_p - p)
            new_slots.append(new_s)
        hyperparams = _hyperparams.advance(state.hyperparams, given)
        new_state = OptimizerState(hyperparams, _by_name(new_slots, treedef))
        return treedef.unflatten(new_leaves), new_state

    return optax.GradientTransformation(init_fn, update_fn)


def _in_wide(update: Update, p, g, slots: Slots, values: Mapping[str, jax.Array]):
    """Compute in at least float32 and keep the dtypes: one rounding for bfloat16 parameters."""
    dtype = wide(p.dtype)

    def cast(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    hyper = {name: value.astype(dtype) for name, value in values.items()}
    new_p, new_slots = update(cast(p), cast(g), jax.tree.map(cast, slots), hyper)
    new_slots = {name: new_slots[name].astype(old.dtype) for name, old in slots.items()}
    return new_p.astype(p.dtype), new_slots


def bias_correction(beta: float, t: jax.Array) -> jax.Array:
    """``1 - beta**t``: in float64 as PyTorch has it on the host, in float32 to a few ulp.

    As a power, float32 would lose 1e-5 of it at t = 1.

    Args:
      beta: decay rate, 0 <= beta < 1.
      t: steps, at least 1; shape (), int32.
    """
    dtype = jnp.result_type(float)
    if dtype == jnp.float64:
        return 1.0 - beta ** t.astype(dtype)
    log_beta = jnp.array(math.log(beta) if beta > 0 else -math.inf, dtype)
    return -jnp.expm1(t.astype(dtype) * log_beta)


def lerp(start: jax.Array, end: jax.Array, weight: float) -> jax.Array:
    """``torch.lerp``, with its two branches: each is exact at the end it is closer to."""
    if weight < 0.5:
        return start + weight * (end - start)
    return end - (end - start) * (1.0 - weight)


def _by_name(slots: list[Slots], treedef) -> dict[str, PyTree]:
    names = slots[0] if slots else {}
    return {name: treedef.unflatten([s[name] for s in slots]) for name in names}


def _by_leaf(slots: dict[str, PyTree], treedef) -> list[Slots]:
    columns = {name: treedef.flatten_up_to(tree) for name, tree in slots.items()}
    return [
        {name: column[i] for name, column in columns.items()} for i in range(treedef.num_leaves)
    ]

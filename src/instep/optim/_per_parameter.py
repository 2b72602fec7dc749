"""From the rule for one parameter, as torch.optim writes it, to a transformation of trees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
Update = Callable[..., tuple[jax.Array, Slots]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OptimizerState:
    """The ``state`` of ``torch.optim.Optimizer``, by name instead of by parameter.

    ``slots["exp_avg"]`` is a tree like params; the names are PyTorch's. Where a parameter
    has no such slot (Adafactor keeps others for a vector than for a matrix) stands None.
    """

    hyperparams: Hyperparams  # what the next update uses
    slots: dict[str, PyTree]  # trees like params, by PyTorch's names


def per_parameter(
    init: Init,
    update: Update,
    given: Mapping[str, Any],
    extra: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """Lift a rule for one parameter to pytrees.

    Args:
      init: ``p -> slots``, the state PyTorch keeps for one parameter.
      update: ``(p, g, slots, hyper, **extra) -> (new_p, new_slots)``, PyTorch's
        ``_single_tensor_*`` in its order of operations, in at least float32. ``hyper`` holds
        the hyperparameters, and as ``"dtype"`` the parameter's own.
      given: hyperparameters: a float, or for those that may be data a schedule.
      extra: names of trees like params that ``update`` takes as keywords, None if absent.

    Returns:
      A transformation whose updates are ``new_p - p``. A gradient that is None leaves its
      parameter and its slots alone, as a ``p.grad`` of None does: no decay, no step.
    """
    data, constants = _hyperparams.split(given)

    def init_fn(params: PyTree) -> Any:
        _check_real(params)
        leaves, treedef = jax.tree.flatten(params)
        slots = _by_name([init(p) for p in leaves], treedef)
        return OptimizerState(_hyperparams.init(data), slots)

    def update_fn(updates: PyTree, state: Any, params: PyTree = None, **others: Any) -> Any:
        if params is None:
            raise ValueError(
                "instep.optim computes new parameters, so it needs the old ones: call "
                "tx.update(grads, opt_state, params)."
            )
        if not isinstance(state, OptimizerState):
            raise TypeError(
                f"opt_state is a {type(state).__name__}, not what tx.init made: an "
                f"OptimizerState. Give the part of it that belongs to this transformation."
            )
        leaves, treedef = jax.tree.flatten(params)
        grads = treedef.flatten_up_to(updates)
        for p, g in zip(leaves, grads, strict=True):
            if g is not None and jnp.shape(g) != jnp.shape(p):
                raise ValueError(
                    f"a gradient of shape {jnp.shape(g)} for a parameter of {jnp.shape(p)}."
                )
        slots = _by_leaf(state.slots, treedef)
        extras = _by_leaf({name: others.get(name) for name in extra}, treedef)
        values = state.hyperparams.values
        new_leaves, new_slots = [], []
        for p, g, s, e in zip(leaves, grads, slots, extras, strict=True):
            new_p, new_s = (p, s)
            if g is not None:
                new_p, new_s = _in_wide(update, p, g, s, values, constants, e)
            new_leaves.append(new_p - p)
            new_slots.append(new_s)
        hyperparams = _hyperparams.advance(state.hyperparams, data)
        new_state = OptimizerState(hyperparams, _by_name(new_slots, treedef))
        return treedef.unflatten(new_leaves), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _in_wide(update: Update, p, g, slots: Slots, values, constants, extra):
    """Compute in at least float32 and keep the dtypes: one rounding for bfloat16 parameters."""
    dtype = wide(p.dtype)

    def cast(x):
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    hyper = constants | {name: value.astype(dtype) for name, value in values.items()}
    new_p, new_slots = update(
        cast(p), cast(g), jax.tree.map(cast, slots), hyper | {"dtype": p.dtype}, **extra
    )
    new_slots = {name: new_slots[name].astype(old.dtype) for name, old in slots.items()}
    return new_p.astype(p.dtype), new_slots


def _check_real(params: PyTree) -> None:
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(jnp.result_type(p), jnp.floating):
            name = jax.tree_util.keystr(path) or "params"
            raise TypeError(
                f"{name} is {jnp.result_type(p)}; instep.optim updates real floating arrays. "
                f"Keep the real and the imaginary part of a complex parameter apart."
            )


def _by_name(slots: list[Slots], treedef) -> dict[str, PyTree]:
    names = dict.fromkeys(name for s in slots for name in s)
    return {name: treedef.unflatten([s.get(name) for s in slots]) for name in names}


def _by_leaf(slots: Mapping[str, PyTree], treedef) -> list[Slots]:
    n = treedef.num_leaves
    columns = {
        name: [None] * n if tree is None else treedef.flatten_up_to(tree)
        for name, tree in slots.items()
    }
    return [
        {name: column[i] for name, column in columns.items() if column[i] is not None}
        for i in range(n)
    ]

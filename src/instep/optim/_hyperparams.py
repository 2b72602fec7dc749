"""Hyperparameters as data: the values the next update will use, inside the optimizer state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._state import Hyperparams, PyTree


# Data also when given as a number. Not beta1: of float32(0.9), 1 - beta1 has lost two digits.
ALWAYS_DATA = ("lr", "momentum")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ParamGroupsState:
    """``optimizer.param_groups``: one optimizer state per group, in order.

    Each holds the leaves of its own group, and None for those of the others. That of a group
    that is not trained is an ``optax.EmptyState``.
    """

    groups: tuple[PyTree, ...]  # trees like params, None for the leaves of other groups


def split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Part hyperparameters into those that are data and those that are constants."""
    data = {
        name: value
        for name, value in given.items()
        if name in ALWAYS_DATA or not isinstance(value, float)
    }
    return data, {name: value for name, value in given.items() if name not in data}


def init(data: Mapping[str, Any]) -> Hyperparams:
    """The values at count 0."""
    count = jnp.zeros((), jnp.int32)
    return Hyperparams(count, {name: _at(value, count) for name, value in data.items()})


def advance(now: Hyperparams, data: Mapping[str, Any]) -> Hyperparams:
    """PyTorch's ``scheduler.step()``: scheduled values move on, plain ones stay."""
    count = now.count + 1
    values = {
        name: _at(value, count) if callable(value) else now.values[name]
        for name, value in data.items()
    }
    return Hyperparams(count, values)


def hyperparams(opt_state: PyTree, group: int | None = None) -> dict[str, jax.Array]:
    """The current hyperparameters, for example ``{"lr": Array(0.1)}``.

    PyTorch: ``optimizer.param_groups[group]["lr"]``, the value the *next* step will use.

    Args:
      opt_state: tree, the state of an ``instep.optim`` transformation, alone or inside others
        (``param_groups``, ``optax.chain``, ``optax.masked``).
      group: which one, counted in ``param_groups``; None if there is one transformation.

    Raises:
      ValueError: there is no such transformation inside, or several and no ``group``.
    """
    return dict(_chosen(opt_state, group).values)


def set_hyperparams(
    opt_state: PyTree, group: int | None = None, **values: float | jax.Array
) -> PyTree:
    """Return ``opt_state`` with new hyperparameters; shapes and dtypes stay: no retrace.

    PyTorch: ``optimizer.param_groups[group]["lr"] = 0.01``. A scheduled value is in force
    for one update; then the schedule sets it again. A number is in force until it is set
    again, also with another transformation: the state holds it.

    Args:
      opt_state, group: as for ``hyperparams``.
      values: scalars by name, ``lr=0.01``; each takes the dtype that stands there.

    Raises:
      ValueError: a name the transformation does not have, or as ``hyperparams``.
    """
    chosen = _chosen(opt_state, group)
    current = chosen.values
    unknown = sorted(set(values) - set(current))
    if unknown:
        raise ValueError(
            f"no hyperparameters {unknown} in this state; it has {sorted(current)}. The "
            f"others are fixed when the optimizer is made; betas[0] is beta1, and data when it "
            f"is made from a schedule."
        )
    if several := {n: np.shape(v) for n, v in values.items() if np.size(v) != 1}:
        raise ValueError(
            f"hyperparameters are scalars; got shapes {several}. Set those of several groups "
            f"one after the other: set_hyperparams(opt_state, group=i, lr=lr[i])."
        )
    new = current | {
        n: jnp.asarray(v, current[n].dtype).reshape(current[n].shape) for n, v in values.items()
    }
    return jax.tree.map(
        lambda x: replace(x, values=new) if x is chosen else x, opt_state, is_leaf=_is_record
    )


def _at(value: Any, count: jax.Array) -> jax.Array:
    value = value(count) if callable(value) else value
    return jnp.array(value, dtype=jnp.result_type(float))


def _is_record(x: Any) -> bool:
    return isinstance(x, Hyperparams)


def _chosen(opt_state: PyTree, group: int | None) -> Hyperparams:
    parts = [opt_state] if group is None else _groups(opt_state)
    if group is not None and not 0 <= group < len(parts):
        raise ValueError(f"no {group=} in this state; it has {len(parts)}, counted from 0.")
    found = jax.tree.leaves(parts[group or 0], is_leaf=_is_record)
    found = [x for x in found if _is_record(x)]
    if len(found) != 1:
        raise ValueError(
            f"expected the state of one instep.optim transformation, found {len(found)}. "
            f"Say which with group=0, 1, ..., or pass the part of opt_state that you mean."
        )
    return found[0]


def _groups(opt_state: PyTree) -> list[Any]:
    """The states of the groups of ``param_groups``; any other state is the only one."""

    def has_groups(x: Any) -> bool:
        return isinstance(x, ParamGroupsState)

    leaves = jax.tree.leaves(opt_state, is_leaf=has_groups)
    found = [x for x in leaves if has_groups(x)]
    return list(found[0].groups) if len(found) == 1 else [opt_state]

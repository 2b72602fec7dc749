"""Hyperparameters as data: the values the next update will use, inside the optimizer state."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._state import PyTree


Schedule = Callable[[Any], Any]
Hyperparam = float | jax.Array | np.ndarray | Schedule


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Hyperparams:
    """The counterpart of ``optimizer.param_groups[i]["lr"]`` and of the scheduler's clock.

    ``values["lr"]`` is what the next update uses; after each update a scheduled value
    becomes ``schedule(count)``. The count is the scheduler's own: a step that a gradient
    scaler skips advances it while every parameter's ``step`` holds.
    """

    count: jax.Array  # shape=(), int32: updates so far
    values: dict[str, jax.Array]  # each shape=(), float64 under x64, else float32


def scheduled(name: str, value: Hyperparam, low: float = 0.0) -> Any:
    """Return a hyperparameter that is data: a number as ``fixed`` does, or a schedule."""
    if callable(value) or isinstance(value, Tracer):
        return value
    return fixed(name, value, low)


def fixed(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a hyperparameter as a Python float; raise if it is out of range.

    A number is kept in double precision on the host, never as a JAX array, so that a
    constructor called before x64 is switched on does not round it.

    Raises:
      TypeError: it is not a number.
      ValueError: it is not a scalar, or not in ``[low, high)``.
    """
    if callable(value) or isinstance(value, Tracer | str) or value is None:
        raise TypeError(f"{name} must be a number; got {value!r}. Only lr may be a schedule.")
    if np.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar; got shape {np.shape(value)}.")
    number = float(value)
    if not low <= number < high:
        allowed = f"{name} >= {low}" if high == math.inf else f"{low} <= {name} < {high}"
        raise ValueError(f"Invalid {name}: {number}. It must satisfy {allowed}.")
    return number


def init(given: Mapping[str, Any]) -> Hyperparams:
    """The values at count 0."""
    count = jnp.zeros((), jnp.int32)
    return Hyperparams(count, {name: _at(value, count) for name, value in given.items()})


def advance(now: Hyperparams, given: Mapping[str, Any]) -> Hyperparams:
    """PyTorch's ``scheduler.step()``: scheduled values move on, plain ones stay."""
    count = now.count + 1
    values = {
        name: _at(value, count) if callable(value) else now.values[name]
        for name, value in given.items()
    }
    return Hyperparams(count, values)


def hyperparams(opt_state: PyTree) -> dict[str, jax.Array]:
    """The current hyperparameters, for example ``{"lr": Array(0.1)}``.

    PyTorch: ``optimizer.param_groups[0]["lr"]``, the value the *next* step will use.

    Args:
      opt_state: the state of an ``instep.optim`` transformation, alone or inside others
        (``optax.chain``, ``optax.masked``).

    Raises:
      ValueError: there is not exactly one such transformation inside.
    """
    return dict(_only(opt_state).values)


def set_hyperparams(opt_state: PyTree, **values: float | jax.Array) -> PyTree:
    """Return ``opt_state`` with new hyperparameters; shapes and dtypes stay: no retrace.

    PyTorch: ``optimizer.param_groups[0]["lr"] = 0.01``. A scheduled value is in force for
    one update; then the schedule sets it again.

    Raises:
      ValueError: a name the transformation does not have, or not exactly one transformation.
    """
    current = _only(opt_state).values
    unknown = sorted(set(values) - set(current))
    if unknown:
        raise ValueError(
            f"no hyperparameters {unknown} in this state; it has {sorted(current)}. The "
            f"others are fixed when the optimizer is made."
        )
    new = current | {n: jnp.asarray(v, current[n].dtype) for n, v in values.items()}
    return jax.tree.map(
        lambda x: replace(x, values=new) if isinstance(x, Hyperparams) else x,
        opt_state,
        is_leaf=lambda x: isinstance(x, Hyperparams),
    )


def _at(value: Any, count: jax.Array) -> jax.Array:
    value = value(count) if callable(value) else value
    return jnp.array(value, dtype=jnp.result_type(float))


def _only(opt_state: PyTree) -> Hyperparams:
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, Hyperparams))
    found = [x for x in leaves if isinstance(x, Hyperparams)]
    if len(found) != 1:
        raise ValueError(
            f"expected the state of one instep.optim transformation, found {len(found)}. "
            f"Pass the part of opt_state that belongs to the one you mean."
        )
    return found[0]

"""An optimizer whose learning rate falls when the training loss has stopped improving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .._state import Hyperparams, PlateauState, PyTree
from ._hyperparams import ParamGroupsState


Metric = Callable[[jax.Array], jax.Array]  # of the loss of the step, shape ()
# (init, update), what instep.schedules.reduce_lr_on_plateau makes
Plateau = tuple[Callable[[], PlateauState], Callable[[PlateauState, Any], PlateauState]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OnPlateauState:
    """The state of an optimizer, and that of the scheduler that watches the loss.

    PyTorch: ``optimizer.state_dict()`` and ``scheduler.state_dict()``.
    """

    inner: PyTree  # tree of the optimizer, with the rate of its next update
    plateau: PlateauState  # of the scheduler


def on_plateau(
    tx: optax.GradientTransformation,
    plateau: Plateau,
    every: int = 1,
    metric: Metric = lambda loss: loss,
) -> optax.GradientTransformationExtraArgs:
    """``scheduler.step(metric(loss))`` of ``ReduceLROnPlateau``, after ``optimizer.step()``.

    PyTorch::

        optimizer.step()
        if n % every == 0:
            scheduler.step(metric(loss.item()))

    instep::

        plateau = instep.schedules.reduce_lr_on_plateau(0.1, patience=5)
        tx = instep.optim.on_plateau(instep.optim.sgd(0.1), plateau)

    The loss is that of the step, averaged over its microbatches; ``instep.step`` and
    ``make_train_step`` hand it over as ``value``. A loss of validation data is not known inside
    a step: use ``reduce_lr_on_plateau`` beside it.

    Args:
      tx: an optimizer of ``instep.optim`` or ``param_groups``, whose ``lr`` is a number.
      plateau: ``reduce_lr_on_plateau(lr, ...)``, with one rate for each group.
      every: updates per ``scheduler.step``.
      metric: a function of the loss that JAX can trace.

    Returns:
      A transformation with an ``OnPlateauState``. It goes on also where a gradient scaler
      skips the step, as PyTorch's scheduler does.

    Raises:
      ValueError: ``every`` is below 1; from ``init``, groups without a rate; from ``update``,
        no ``value``.
      TypeError: ``metric`` cannot be traced.
    """
    if every < 1:
        raise ValueError(f"every counts from 1; got {every=}.")
    tx = optax.with_extra_args_support(tx)
    init, advance = plateau

    def init_fn(params: PyTree) -> Any:
        inner, state = tx.init(params), init()
        groups = _clocks(inner)
        if not groups or max(groups) >= state.lr.size:
            raise ValueError(
                f"tx has the learning rates of groups {sorted(groups)}, and the plateau those "
                f"of {state.lr.size}. Give reduce_lr_on_plateau one for each group, and an "
                f"optimizer of instep.optim."
            )
        return OnPlateauState(inner, state)

    def update_fn(
        updates: PyTree, state: Any, params: PyTree = None, *, value: Any = None, **extra: Any
    ) -> Any:
        if value is None:
            raise ValueError(
                "on_plateau watches the loss, so update needs it: "
                "tx.update(grads, opt_state, params, value=loss)."
            )
        updates, inner = tx.update(updates, state.inner, params, value=value, **extra)
        groups = _clocks(inner)
        old = replace(state.plateau, lr=_with_rates(state.plateau.lr, groups))
        new = advance(old, _measured(metric, value))
        due = next(iter(groups.values())).count % every == 0
        new = jax.tree.map(lambda a, b: jnp.where(due, a, b), new, old)
        return updates, OnPlateauState(_set_rates(inner, new.lr), new)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _measured(metric: Metric, loss: Any) -> Any:
    try:
        return metric(loss)
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError) as error:
        raise TypeError(
            "metric is a part of the step, so JAX must be able to trace it: it may not call "
            "float, math or if on the loss. Use arithmetic or jax.numpy, for example "
            "metric=lambda loss: -loss."
        ) from error


def _clocks(inner: PyTree) -> dict[int, Hyperparams]:
    """By the number of its group; a group that is not trained has none."""
    parts = inner.groups if isinstance(inner, ParamGroupsState) else (inner,)
    found: dict[int, Hyperparams] = {}
    for i, part in enumerate(parts):
        for leaf in jax.tree.leaves(part, is_leaf=_is_clock):
            if _is_clock(leaf):
                found[i] = leaf
    return found


def _with_rates(lr: jax.Array, groups: dict[int, Hyperparams]) -> jax.Array:
    """The rates that stand now; they may have been set by hand."""
    flat = jnp.reshape(lr, -1)
    for i, clock in groups.items():
        flat = flat.at[i].set(clock.values["lr"].astype(flat.dtype))
    return flat.reshape(lr.shape)


def _set_rates(inner: PyTree, lr: jax.Array) -> PyTree:
    flat, groups = jnp.reshape(lr, -1), _clocks(inner)

    def change(x: Any) -> Any:
        for i, clock in groups.items():
            if x is clock:
                rate = flat[i].astype(clock.values["lr"].dtype)
                return replace(clock, values=clock.values | {"lr": rate})
        return x

    return jax.tree.map(change, inner, is_leaf=_is_clock)


def _is_clock(x: Any) -> bool:
    return isinstance(x, Hyperparams)

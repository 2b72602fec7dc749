"""Reduce the learning rate when a metric has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._state import PlateauState
from ._checks import choice, integer, number


class Plateau(NamedTuple):
    """``init() -> state`` and ``update(state, metric) -> state``, both pure.

    PyTorch: ``torch.optim.lr_scheduler.ReduceLROnPlateau`` and its ``step``.

    Args:
      init: makes the state before the first metric.
      update: takes one metric, a scalar, and casts it to the dtype of ``state.best``.
    """

    init: Callable[[], PlateauState]
    update: Callable[[PlateauState, jax.Array | float], PlateauState]


def reduce_lr_on_plateau(
    base_lr: float | Sequence[float],
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float | Sequence[float] = 0,
    eps: float = 1e-8,
) -> Plateau:
    """``torch.optim.lr_scheduler.ReduceLROnPlateau``.

    A metric that is not better than the best one by the threshold is *bad*. After more than
    ``patience`` bad ones in a row

    .. math:: \\eta \\leftarrow \\max(f \\eta, \\eta_{min})

    if that changes it by more than ``eps``, and for the next ``cooldown`` metrics none is
    counted as bad. NaN is never better.

    ``optax.contrib.reduce_on_plateau`` reduces one bad metric earlier: its ``patience`` is
    PyTorch's plus 1. It scales updates, with a relative ``min_scale``, and has no mode "max".

    Example::

        plateau = reduce_lr_on_plateau(0.1, patience=2)
        state = plateau.init()
        for epoch in range(epochs):
            ...
            state = plateau.update(state, validation_loss)
            opt_state = instep.optim.set_hyperparams(opt_state, lr=state.lr)

    ``instep.optim.on_plateau`` does this inside the training step, on the training loss.

    Args:
      base_lr: the ``lr`` the PyTorch optimizer was made with, or one for each group.
      mode: whether the metric should fall ("min") or rise ("max").
      factor: :math:`f < 1`.
      patience: bad metrics in a row that are tolerated.
      threshold: how much better is better.
      threshold_mode: of the best metric ("rel") or as it is ("abs").
      cooldown: metrics after a reduction that are not counted.
      min_lr: :math:`\\eta_{min}`, one or one for each group.
      eps: the smallest reduction that is made.

    Returns:
      ``Plateau(init, update)``. ``state.lr`` has the shape (), or (groups,) if ``base_lr`` or
      ``min_lr`` is a sequence.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``factor >= 1``, an unknown mode, or ``base_lr`` and ``min_lr`` do not have
        the same number of groups.
    """
    choice("mode", mode, "min", "max")
    choice("threshold_mode", threshold_mode, "rel", "abs")
    factor, eps = number("factor", factor), number("eps", eps)
    threshold = number("threshold", threshold)
    patience, cooldown = integer("patience", patience, 0), integer("cooldown", cooldown, 0)
    if not factor < 1:
        raise ValueError(f"factor must be < 1; got {factor=}.")
    lr, floor = _per_group("base_lr", base_lr), _per_group("min_lr", min_lr)
    if lr.ndim and floor.ndim and lr.shape != floor.shape:
        raise ValueError(
            f"base_lr and min_lr must have one value for each group; got {base_lr=}, {min_lr=}."
        )
    sign = 1.0 if mode == "min" else -1.0
    lr = np.broadcast_to(lr, np.broadcast_shapes(lr.shape, floor.shape))
    floor = np.broadcast_to(floor, lr.shape)

    def init() -> PlateauState:
        dtype, zero = jnp.result_type(float), jnp.zeros((), jnp.int32)
        best = jnp.asarray(sign * math.inf, dtype)
        return PlateauState(jnp.asarray(lr, dtype), best, zero, zero, zero)

    def is_better(metric: jax.Array, best: jax.Array) -> jax.Array:
        scale = 1.0 - sign * threshold
        to_beat = best * scale if threshold_mode == "rel" else best - sign * threshold
        return metric < to_beat if mode == "min" else metric > to_beat

    def update(state: PlateauState, metric: jax.Array | float) -> PlateauState:
        metric = jnp.asarray(metric).astype(state.best.dtype)
        better = is_better(metric, state.best)
        best = jnp.where(better, metric, state.best)
        bad = jnp.where(better, 0, state.num_bad_epochs + 1)

        cooling = state.cooldown_counter > 0
        waiting = jnp.where(cooling, state.cooldown_counter - 1, state.cooldown_counter)
        bad = jnp.where(cooling, 0, bad)

        reduce = bad > patience
        reduced = jnp.maximum(state.lr * factor, jnp.asarray(floor, state.lr.dtype))
        lr = jnp.where(reduce & (state.lr - reduced > eps), reduced, state.lr)
        waiting = jnp.where(reduce, cooldown, waiting)
        bad = jnp.where(reduce, 0, bad)
        return PlateauState(lr, best, bad, waiting, state.last_epoch + 1)

    return Plateau(init, update)


def _per_group(name: str, value: float | Sequence[float]) -> np.ndarray:
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str):
        return np.array([number(name, x) for x in value], np.float64)
    return np.array(number(name, value), np.float64)

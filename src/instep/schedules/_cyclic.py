"""Triangular cycles between two rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from ._checks import choice, integer, number
from ._curves import floating, integer_power
from ._recursion import Group, Leaf, Moment
from ._schedule import Rate, Schedule


def cyclic_lr(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: int | None = None,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: float = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: Literal["cycle", "iterations"] = "cycle",
    cycle_momentum: bool = True,
    base_momentum: float = 0.8,
    max_momentum: float = 0.9,
) -> Schedule:
    """``torch.optim.lr_scheduler.CyclicLR``.

    .. math::
        \\eta_t &= \\eta_{base} + (\\eta_{max} - \\eta_{base}) \\, s_t \\, w_t \\\\
        \\mu_t &= \\mu_{max} - (\\mu_{max} - \\mu_{base}) \\, s_t \\, w_t

    where :math:`s_t` rises from 0 to 1 in ``step_size_up`` steps and falls again in
    ``step_size_down``, and :math:`w_t` is 1 (triangular), :math:`2^{1-c}` in cycle
    :math:`c = 1, 2, \\dots` (triangular2), :math:`\\gamma^t` (exp_range) or ``scale_fn`` of
    the cycle or of :math:`t`. optax has the first, for finitely many cycles and without
    momentum: ``optax.piecewise_interpolate_schedule``.

    Args:
      base_lr: :math:`\\eta_{base}`; the ``lr`` of the optimizer is not used, as in PyTorch.
      max_lr: :math:`\\eta_{max}`.
      step_size_up: steps from ``base_lr`` to ``max_lr``. PyTorch takes fractions too.
      step_size_down: steps back; ``step_size_up`` if None.
      mode: the shape of :math:`w_t`, where ``scale_fn`` is None.
      gamma: :math:`\\gamma` of exp_range.
      scale_fn: :math:`w`, of an integer; written with ``jax.numpy`` if it does more than
        arithmetic.
      scale_mode: what ``scale_fn`` is given: the cycle or the count ("iterations").
      cycle_momentum: the schedule has a ``momentum``.
      base_momentum: :math:`\\mu_{base}`, reached where the rate is largest.
      max_momentum: :math:`\\mu_{max}`.

    Returns:
      ``schedule(count)``, with ``schedule.momentum(count)`` unless ``cycle_momentum=False``.

    Raises:
      TypeError: a value is not a number.
      ValueError: a step size is not integral, or ``mode`` or ``scale_mode`` is unknown.

    References:
      Smith, `Cyclical Learning Rates for Training Neural Networks
      <https://arxiv.org/abs/1506.01186>`_, 2015.
    """
    base_lr, max_lr = number("base_lr", base_lr), number("max_lr", max_lr)
    low, high = number("base_momentum", base_momentum), number("max_momentum", max_momentum)
    gamma = number("gamma", gamma)
    up = integer("step_size_up", step_size_up)
    down = up if step_size_down is None else integer("step_size_down", step_size_down, low=0)
    total = up + down
    if scale_fn is None:
        choice("mode", mode, "triangular", "triangular2", "exp_range")
        scale_mode = "iterations" if mode == "exp_range" else "cycle"
    choice("scale_mode", scale_mode, "cycle", "iterations")

    def weight(count: jax.Array) -> jax.Array:
        cycle = count // total
        if scale_fn is not None:
            w = jnp.asarray(scale_fn(cycle + 1 if scale_mode == "cycle" else count))
            return w.astype(jnp.result_type(float))
        if mode == "exp_range":
            return integer_power(gamma, count)
        return integer_power(0.5 if mode == "triangular2" else 1.0, cycle)

    def between(start: float, end: float) -> Rate:
        """``start + (end - start) s w``, as a sum of two terms without cancellation."""

        def rate(count: jax.Array) -> jax.Array:
            w, done = weight(count), count % total
            rising = done <= up
            steps = jnp.where(rising, up, max(down, 1))
            from_start = floating(jnp.where(rising, done, total - done)) / steps
            from_end = floating(jnp.where(rising, up - done, done - up)) / steps
            return start * ((1.0 - w) + w * from_end) + end * w * from_start

        return rate

    def height(now: Moment) -> float:
        cycle = now.last_epoch // total
        x, ratio = now.last_epoch / total - cycle, up / total
        scale = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        if scale_fn is not None:
            return scale * float(
                scale_fn(cycle + 1 if scale_mode == "cycle" else now.last_epoch)
            )
        if mode == "exp_range":
            return scale * gamma**now.last_epoch
        return scale * 0.5**cycle if mode == "triangular2" else scale

    def setup(group: Group) -> None:
        group["lr"] = base_lr
        if cycle_momentum:
            group |= {"momentum": high, "max_momentum": high, "base_momentum": low}

    leaf = Leaf(
        "cyclic_lr",
        None,
        get_lr=lambda now: now.base_lr + (max_lr - now.base_lr) * height(now),
        get_momentum=(lambda now: high - (high - low) * height(now))
        if cycle_momentum
        else None,
        setup=setup,
        own_base_lr=base_lr,
    )
    momentum = Schedule(between(high, low)) if cycle_momentum else None
    return Schedule(between(base_lr, max_lr), momentum, leaf)

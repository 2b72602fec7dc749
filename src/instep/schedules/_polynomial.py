"""Polynomial decay to zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._checks import integer, number
from ._curves import ratio_power
from ._recursion import Leaf, Moment
from ._schedule import Schedule


def polynomial_lr(base_lr: float, total_iters: int = 5, power: float = 1.0) -> Schedule:
    """``torch.optim.lr_scheduler.PolynomialLR``.

    .. math:: \\eta_t = \\eta_0 \\left(1 - \\frac{\\min(t, T)}{T}\\right)^p

    ``optax.polynomial_schedule(base_lr, 0, p, T)`` is the same, in float32 even under x64.
    With ``total_iters=0`` the rate stays at :math:`\\eta_0`, as PyTorch's does.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      total_iters: :math:`T`.
      power: :math:`p \\ge 0`. With a negative one PyTorch divides by zero at step ``T``.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``total_iters`` or ``power`` is negative.
    """
    base_lr, power = number("base_lr", base_lr), number("power", power)
    total_iters = integer("total_iters", total_iters, low=0)
    if not power >= 0:
        raise ValueError(f"power must be >= 0; got {power=}.")

    def rate(count: jax.Array) -> jax.Array:
        if total_iters == 0:
            return jnp.full(count.shape, base_lr, jnp.result_type(float))
        left = total_iters - jnp.minimum(count, total_iters)
        return base_lr * ratio_power(left, total_iters, power)

    def get_lr(now: Moment) -> float:
        if now.is_initial or now.last_epoch > total_iters:
            return now.lr
        left = 1.0 - now.last_epoch / total_iters
        before = 1.0 - (now.last_epoch - 1) / total_iters
        return now.lr * (left / before) ** power

    def closed_form(now: Moment) -> float:
        return now.base_lr * (1.0 - min(now.last_epoch, total_iters) / total_iters) ** power

    leaf = Leaf("polynomial_lr", base_lr, get_lr, closed_form)
    return Schedule(rate, node=leaf, entered=rate if total_iters else None)

"""Exponential decay."""

from __future__ import annotations

import jax

from ._checks import number
from ._curves import integer_power
from ._recursion import Leaf, Moment
from ._schedule import Schedule


def exponential_lr(base_lr: float, gamma: float) -> Schedule:
    """``torch.optim.lr_scheduler.ExponentialLR``.

    .. math:: \\eta_t = \\eta_0 \\, \\gamma^t

    ``optax.exponential_decay(base_lr, 1, gamma)`` rounds :math:`\\gamma` to float32 before it
    takes the power: at :math:`\\gamma = 0.999` it is off by 1e-4 after 10,000 steps.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      gamma: :math:`\\gamma`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
    """
    base_lr, gamma = number("base_lr", base_lr), number("gamma", gamma)

    def rate(count: jax.Array) -> jax.Array:
        return base_lr * integer_power(gamma, count)

    def get_lr(now: Moment) -> float:
        return now.lr if now.is_initial else now.lr * gamma

    def closed_form(now: Moment) -> float:
        return now.base_lr * gamma**now.last_epoch

    leaf = Leaf("exponential_lr", base_lr, get_lr, closed_form)
    return Schedule(rate, node=leaf, entered=rate)

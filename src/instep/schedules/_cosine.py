"""Cosine annealing."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ._checks import integer, number
from ._curves import cosine, floating
from ._recursion import Leaf, Moment
from ._schedule import Schedule


def cosine_annealing_lr(base_lr: float, T_max: int, eta_min: float = 0.0) -> Schedule:
    """``torch.optim.lr_scheduler.CosineAnnealingLR``.

    .. math:: \\eta_t = \\eta_{min} + \\tfrac12 (\\eta_0 - \\eta_{min})
              \\left(1 + \\cos\\frac{\\pi t}{T_{max}}\\right)

    Past ``T_max`` the rate rises again with period ``2 T_max``, as PyTorch's does;
    ``optax.cosine_decay_schedule`` stays at the end. The half angle of an integer
    ``T_max - t`` keeps float32 accurate where the rate goes to zero.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      T_max: steps to the minimum, at least 1.
      eta_min: :math:`\\eta_{min}`.

    Returns:
      ``schedule(count)``: the rate of the update number ``count`` (from 0), shape ().

    Raises:
      TypeError: a value is not a number.
      ValueError: ``T_max`` is not a positive integer.

    References:
      Loshchilov and Hutter, `SGDR: Stochastic Gradient Descent with Warm Restarts
      <https://arxiv.org/abs/1608.03983>`_, 2016 (without the restarts).
    """
    base_lr, eta_min = number("base_lr", base_lr), number("eta_min", eta_min)
    T_max = integer("T_max", T_max)

    def rate(count: jax.Array) -> jax.Array:
        phase = count % (2 * T_max)
        left = jnp.abs(T_max - phase)  # to the nearest minimum
        return cosine(base_lr, eta_min, floating(T_max - left), floating(left), T_max)

    def get_lr(now: Moment) -> float:
        t = now.last_epoch
        if now.is_initial:
            return now.lr
        if (t - 1 - T_max) % (2 * T_max) == 0:  # one step past the minimum: no ratio there
            return now.lr + (now.base_lr - eta_min) * (1 - math.cos(math.pi / T_max)) / 2
        here, before = (1 + math.cos(math.pi * s / T_max) for s in (t, t - 1))
        return eta_min + here / before * (now.lr - eta_min)

    def closed_form(now: Moment) -> float:
        wave = (1 + math.cos(math.pi * now.last_epoch / T_max)) / 2
        return eta_min + (now.base_lr - eta_min) * wave

    leaf = Leaf("cosine_annealing_lr", base_lr, get_lr, closed_form)
    return Schedule(rate, node=leaf, entered=rate)

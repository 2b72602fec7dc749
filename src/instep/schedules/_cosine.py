"""Cosine annealing."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


def cosine_annealing_lr(
    base_lr: float, T_max: int, eta_min: float = 0.0
) -> Callable[[jax.Array | int], jax.Array]:
    """``torch.optim.lr_scheduler.CosineAnnealingLR``.

    .. math:: \\gamma_t = \\gamma_{min} + \\tfrac12 (\\gamma_{base} - \\gamma_{min})
              \\left(1 + \\cos\\frac{\\pi t}{T_{max}}\\right)

    Past ``T_max`` the rate rises again with period ``2 T_max``, as PyTorch's does;
    ``optax.cosine_decay_schedule`` stays at the end. The half-angle form with an integer
    ``T_max - t`` keeps float32 accurate where the rate goes to zero.

    Args:
      base_lr: :math:`\\gamma_{base}`, the ``lr`` the PyTorch optimizer was made with.
      T_max: steps to the minimum, at least 1.
      eta_min: :math:`\\gamma_{min}`.

    Returns:
      ``schedule(count)``: the rate of the update number ``count`` (from 0), shape ().

    Raises:
      ValueError: ``T_max`` is not a positive integer.

    References:
      Loshchilov and Hutter, `SGDR: Stochastic Gradient Descent with Warm Restarts
      <https://arxiv.org/abs/1608.03983>`_, 2016 (without the restarts).
    """
    if T_max != int(T_max) or T_max < 1:
        raise ValueError(f"T_max must be a positive integer; got {T_max=}.")
    base_lr, eta_min, T_max = float(base_lr), float(eta_min), int(T_max)

    def schedule(count: jax.Array | int) -> jax.Array:
        to_minimum = jnp.abs((T_max - jnp.asarray(count)) % (2 * T_max))
        to_minimum = jnp.minimum(to_minimum, 2 * T_max - to_minimum)
        dtype = jnp.result_type(float)
        half_angle = to_minimum.astype(dtype) * (math.pi / (2 * T_max))
        return eta_min + (base_lr - eta_min) * jnp.sin(half_angle) ** 2

    return schedule

"""Cosine annealing with warm restarts."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import integer, number
from ._curves import cosine, floating, quarter_waves
from ._recursion import Leaf, Moment
from ._schedule import Schedule


LARGEST = np.iinfo(np.int32).max


def cosine_annealing_warm_restarts(
    base_lr: float, T_0: int, T_mult: int = 1, eta_min: float = 0.0
) -> Schedule:
    """``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``.

    .. math:: \\eta_t = \\eta_{min} + \\tfrac12 (\\eta_0 - \\eta_{min})
              \\left(1 + \\cos\\frac{\\pi T_{cur}}{T_i}\\right), \\quad T_i = T_0 \\, m^i

    where cycle :math:`i` has :math:`T_i` steps, of which :math:`T_{cur}` are done. The rate is
    :math:`\\eta_0` again at the first step of every cycle; :math:`\\eta_{min}` itself is never
    reached. ``optax.sgdr_schedule`` takes a finite list of cycles.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      T_0: steps of the first cycle.
      T_mult: :math:`m`, by which the cycles grow.
      eta_min: :math:`\\eta_{min}`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``T_0`` or ``T_mult`` is not a positive integer.

    References:
      Loshchilov and Hutter, `SGDR: Stochastic Gradient Descent with Warm Restarts
      <https://arxiv.org/abs/1608.03983>`_, 2016.
    """
    base_lr, eta_min = number("base_lr", base_lr), number("eta_min", eta_min)
    T_0, T_mult = integer("T_0", T_0), integer("T_mult", T_mult)
    starts, lengths = _cycles(T_0, T_mult)
    counted = np.minimum(lengths, LARGEST)  # of the last cycle, as many as an int32 can tell
    spare = lengths - counted
    quarters = math.pi / 2 / lengths

    def rate(count: jax.Array) -> jax.Array:
        if T_mult == 1:
            done = count % T_0
            return cosine(base_lr, eta_min, floating(done), floating(T_0 - done), T_0)
        dtype = jnp.result_type(float)
        start, steps = (jnp.asarray(x, jnp.int32) for x in (starts, counted))
        i = jnp.sum(count >= start.astype(count.dtype)) - 1
        done = count - start[i].astype(count.dtype)
        left = floating(steps[i].astype(count.dtype) - done) + jnp.asarray(spare, dtype)[i]
        quarter = jnp.asarray(quarters, dtype)[i]
        return quarter_waves(base_lr, eta_min, floating(done) * quarter, left * quarter)

    def advance(now: Moment) -> None:
        done, cycle = now.memory or (0, T_0)
        if now.last_epoch < 0:
            done, cycle = 0, T_0
        else:
            done += 1
            if done >= cycle:
                done, cycle = done % cycle, cycle * T_mult
        now.last_epoch, now.memory = max(now.last_epoch, -1) + 1, (done, cycle)

    def get_lr(now: Moment) -> float:
        done, cycle = now.memory
        return eta_min + (now.base_lr - eta_min) * (1 + math.cos(math.pi * done / cycle)) / 2

    name = "cosine_annealing_warm_restarts"
    return Schedule(rate, node=Leaf(name, base_lr, get_lr, advance=advance), entered=rate)


def _cycles(T_0: int, T_mult: int) -> tuple[np.ndarray, np.ndarray]:
    """The first step and the length, in float64, of every cycle that an int32 count sees."""
    starts, lengths = [0], [T_0]
    while T_mult > 1 and starts[-1] + lengths[-1] <= LARGEST:
        starts.append(starts[-1] + lengths[-1])
        lengths.append(lengths[-1] * T_mult)
    return np.array(starts), np.array(lengths, np.float64)

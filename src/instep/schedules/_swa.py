"""The learning rate of stochastic weight averaging."""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp

from ._checks import choice, integer, number
from ._curves import CURVES, floating
from ._recursion import Group, Leaf, Moment
from ._schedule import Schedule


def swa_lr(
    base_lr: float,
    swa_lr: float,
    anneal_epochs: int = 10,
    anneal_strategy: Literal["cos", "linear"] = "cos",
) -> Schedule:
    """``torch.optim.swa_utils.SWALR``.

    .. math:: \\eta_t = (1 - \\alpha_t) \\, \\eta_0 + \\alpha_t \\, \\eta_{swa}, \\quad
              \\alpha_t = \\tau \\;\\text{or}\\; \\tfrac12 (1 - \\cos \\pi \\tau), \\quad
              \\tau = \\min(t / n, 1)

    with :math:`\\alpha = 1` from the start if :math:`n = 0`. Alone it is
    ``optax.linear_schedule`` or ``optax.cosine_decay_schedule``; as a member of
    ``sequential_lr`` or ``chained_scheduler`` PyTorch goes on from the rate that it finds.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      swa_lr: :math:`\\eta_{swa}`, the rate at the end.
      anneal_epochs: :math:`n`, steps to the end.
      anneal_strategy: "cos" or "linear".

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``anneal_epochs`` or ``anneal_strategy`` is out of range.

    References:
      Izmailov et al., `Averaging Weights Leads to Wider Optima and Better Generalization
      <https://arxiv.org/abs/1803.05407>`_, 2018.
    """
    base_lr, end_lr = number("base_lr", base_lr), number("swa_lr", swa_lr)
    anneal_epochs = integer("anneal_epochs", anneal_epochs, low=0)
    curve = CURVES[choice("anneal_strategy", anneal_strategy, *CURVES)]
    total = max(anneal_epochs, 1)

    def rate(count: jax.Array) -> jax.Array:
        done = jnp.minimum(count if anneal_epochs else count + 1, total)
        return curve(base_lr, end_lr, floating(done), floating(total - done), total)

    def share(step: int) -> float:
        done = min(max(step / total, 0.0), 1.0)
        return done if anneal_strategy == "linear" else (1 - math.cos(math.pi * done)) / 2

    def get_lr(now: Moment) -> float:
        step = now.step_count - 1 if anneal_epochs else max(1, now.step_count - 1)
        end, before, here = now.group["swa_lr"], share(step - 1), share(step)
        start = end if before == 1 else (now.lr - before * end) / (1 - before)
        return end * here + start * (1 - here)

    def setup(group: Group) -> None:
        group["swa_lr"] = end_lr

    return Schedule(rate, node=Leaf("swa_lr", base_lr, get_lr, setup=setup))

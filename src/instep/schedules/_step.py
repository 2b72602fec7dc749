"""Decay by a factor at given steps."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import integer, number
from ._curves import integer_power
from ._recursion import Leaf, Moment
from ._schedule import Schedule


def step_lr(base_lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """``torch.optim.lr_scheduler.StepLR``.

    .. math:: \\eta_t = \\eta_0 \\, \\gamma^{\\lfloor t / s \\rfloor}

    ``optax.exponential_decay`` is the same with ``staircase=True``, but computes the power in
    float32 even under x64.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      step_size: :math:`s`.
      gamma: :math:`\\gamma`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``step_size`` is not a positive integer.
    """
    base_lr, gamma = number("base_lr", base_lr), number("gamma", gamma)
    step_size = integer("step_size", step_size)

    def rate(count: jax.Array) -> jax.Array:
        return base_lr * integer_power(gamma, count // step_size)

    def get_lr(now: Moment) -> float:
        decays = now.last_epoch != 0 and now.last_epoch % step_size == 0
        return now.lr * gamma if decays else now.lr

    def closed_form(now: Moment) -> float:
        return now.base_lr * gamma ** (now.last_epoch // step_size)

    return Schedule(rate, node=Leaf("step_lr", base_lr, get_lr, closed_form), entered=rate)


def multi_step_lr(base_lr: float, milestones: Iterable[int], gamma: float = 0.1) -> Schedule:
    """``torch.optim.lr_scheduler.MultiStepLR``.

    .. math:: \\eta_t = \\eta_0 \\, \\gamma^{\\,|\\{m \\in M : m \\le t\\}|}

    A milestone given twice counts twice. ``optax.piecewise_constant_schedule`` takes a dict
    from milestone to factor, where it would be given once with ``gamma ** 2``.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      milestones: :math:`M`, in any order.
      gamma: :math:`\\gamma`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: a milestone is not an integer >= 0.
    """
    base_lr, gamma = number("base_lr", base_lr), number("gamma", gamma)
    times = Counter(integer("milestone", m, low=0) for m in milestones)
    passed_at = sorted(times.elements())
    rates = np.array([base_lr * gamma**k for k in range(len(passed_at) + 1)])
    limits = np.minimum(passed_at, np.iinfo(np.int32).max).astype(np.int32)

    def rate(count: jax.Array) -> jax.Array:
        passed = jnp.sum(count >= jnp.asarray(limits, count.dtype))
        return jnp.asarray(rates, jnp.result_type(float))[passed]

    def get_lr(now: Moment) -> float:
        return now.lr * gamma ** times[now.last_epoch]

    def closed_form(now: Moment) -> float:
        return now.base_lr * gamma ** bisect_right(passed_at, now.last_epoch)

    leaf = Leaf("multi_step_lr", base_lr, get_lr, closed_form)
    return Schedule(rate, node=leaf, entered=rate)

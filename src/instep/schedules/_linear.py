"""A constant or linearly changing factor for the first steps: warm-up."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._checks import integer, number
from ._curves import floating, line
from ._recursion import Leaf, Moment
from ._schedule import Schedule


def constant_lr(base_lr: float, factor: float = 1.0 / 3, total_iters: int = 5) -> Schedule:
    """``torch.optim.lr_scheduler.ConstantLR``.

    .. math:: \\eta_t = \\begin{cases} f \\eta_0 & t < T \\\\
                                       \\eta_0 & t \\ge T \\end{cases}

    With ``total_iters=0`` PyTorch never returns to :math:`\\eta_0`, unless the schedule is
    entered at a milestone of a ``SequentialLR``: then it is :math:`\\eta_0` at once.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      factor: :math:`f`, in (0, 1]. PyTorch takes 0, and divides by it at step ``T``.
      total_iters: :math:`T`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``factor`` or ``total_iters`` is out of range.
    """
    base_lr, factor = number("base_lr", base_lr), number("factor", factor)
    total_iters = integer("total_iters", total_iters, low=0)
    if not 0 < factor <= 1:
        raise ValueError(f"factor must be in (0, 1]; got {factor=}.")

    def entered(count: jax.Array) -> jax.Array:
        dtype = jnp.result_type(float)
        return jnp.where(count < total_iters, base_lr * factor, base_lr).astype(dtype)

    def never(count: jax.Array) -> jax.Array:
        return jnp.full(count.shape, base_lr * factor, jnp.result_type(float))

    def get_lr(now: Moment) -> float:
        if now.last_epoch == 0:
            return now.lr * factor
        return now.lr * (1.0 / factor) if now.last_epoch == total_iters else now.lr

    def closed_form(now: Moment) -> float:
        return now.base_lr * (1.0 if now.last_epoch >= total_iters else factor)

    leaf = Leaf("constant_lr", base_lr, get_lr, closed_form)
    return Schedule(entered if total_iters else never, node=leaf, entered=entered)


def linear_lr(
    base_lr: float,
    start_factor: float = 1.0 / 3,
    end_factor: float = 1.0,
    total_iters: int = 5,
) -> Schedule:
    """``torch.optim.lr_scheduler.LinearLR``.

    .. math:: \\eta_t = \\eta_0 \\, \\frac{s \\,(T - t') + e \\, t'}{T}, \\quad t' = \\min(t, T)

    ``optax.linear_schedule(s * base_lr, e * base_lr, T)`` is the same, in float32 even under
    x64. With ``total_iters=0`` the rate stays at :math:`s \\, \\eta_0`, as PyTorch's does.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      start_factor: :math:`s`, in (0, 1].
      end_factor: :math:`e`, in [0, 1].
      total_iters: :math:`T`.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: a value is not a number.
      ValueError: a factor or ``total_iters`` is out of range.

    References:
      Goyal et al., `Accurate, Large Minibatch SGD <https://arxiv.org/abs/1706.02677>`_, 2017.
    """
    base_lr = number("base_lr", base_lr)
    start, end = number("start_factor", start_factor), number("end_factor", end_factor)
    total_iters = integer("total_iters", total_iters, low=0)
    if not 0 < start <= 1:
        raise ValueError(
            f"start_factor must be in (0, 1], as PyTorch divides by it; got {start_factor=}."
        )
    if not 0 <= end <= 1:
        raise ValueError(f"end_factor must be in [0, 1]; got {end_factor=}.")

    def rate(count: jax.Array) -> jax.Array:
        done = jnp.minimum(count, total_iters)
        left = total_iters - done
        if total_iters == 0:
            done, left = done, left + 1
        return line(
            base_lr * start, base_lr * end, floating(done), floating(left), max(total_iters, 1)
        )

    def get_lr(now: Moment) -> float:
        if now.last_epoch == 0:
            return now.lr * start
        if now.is_initial or now.last_epoch > total_iters:
            return now.lr
        before = total_iters * start + (now.last_epoch - 1) * (end - start)
        return now.lr * (1.0 + (end - start) / before)

    def closed_form(now: Moment) -> float:
        done = min(now.last_epoch, total_iters)
        return now.base_lr * (start + (end - start) * done / total_iters)

    leaf = Leaf("linear_lr", base_lr, get_lr, closed_form)
    return Schedule(rate, node=leaf, entered=rate if total_iters else None)

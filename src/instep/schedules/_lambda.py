"""Factors given by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._checks import number
from ._recursion import Leaf, Moment
from ._schedule import Schedule, tabulated


def lambda_lr(
    base_lr: float, lr_lambda: Callable[[Any], Any], total_steps: int | None = None
) -> Schedule:
    """``torch.optim.lr_scheduler.LambdaLR``.

    .. math:: \\eta_t = \\eta_0 \\, \\lambda(t)

    Without ``total_steps`` the function is traced: it is called with a JAX integer and computes
    in float32, unless x64 is on. With it, it is called with the Python integers 0 to
    ``total_steps``, as PyTorch calls it: it may branch and use ``math``, and the rate is
    rounded once.

    Args:
      base_lr: :math:`\\eta_0`, the ``lr`` the PyTorch optimizer was made with.
      lr_lambda: :math:`\\lambda`.
      total_steps: calls of ``scheduler.step()``, for a function that cannot be traced.

    Returns:
      ``schedule(count)``.

    Raises:
      TypeError: ``lr_lambda`` is not a function.
      ValueError: it cannot be traced and there is no ``total_steps`` (raised by the call).
    """
    base_lr = number("base_lr", base_lr)
    leaf = Leaf("lambda_lr", base_lr, lambda now: now.base_lr * lr_lambda(now.last_epoch))
    obstacle = _cannot_be_traced(_function(lr_lambda))
    if total_steps is not None or obstacle:
        return tabulated(leaf, total_steps, f"lr_lambda cannot be traced ({obstacle})")

    def rate(count: jax.Array) -> jax.Array:
        count = count.astype(jnp.result_type(int))  # int32 / int32 is float32, also under x64
        return base_lr * jnp.asarray(lr_lambda(count)).astype(jnp.result_type(float))

    return Schedule(rate, node=leaf, entered=rate)


def multiplicative_lr(
    base_lr: float, lr_lambda: Callable[[int], float], total_steps: int | None = None
) -> Schedule:
    """``torch.optim.lr_scheduler.MultiplicativeLR``.

    .. math:: \\eta_0 = \\eta_{base}, \\quad \\eta_t = \\eta_{t-1} \\, \\lambda(t)

    :math:`\\lambda(0)` is not used, except where the schedule takes over at a milestone of a
    ``SequentialLR``: there PyTorch multiplies the rate that it finds by :math:`\\lambda(0)`.
    optax has nothing like it.

    Args:
      base_lr: :math:`\\eta_{base}`, the ``lr`` the PyTorch optimizer was made with.
      lr_lambda: :math:`\\lambda`, called with the Python integers 1 to ``total_steps``.
      total_steps: calls of ``scheduler.step()``. It may be left out of a member of
        ``sequential_lr`` or ``chained_scheduler``.

    Returns:
      ``schedule(count)``, a table.

    Raises:
      TypeError: ``lr_lambda`` is not a function.
      ValueError: there is no ``total_steps`` (raised by the call).
    """
    _function(lr_lambda)

    def get_lr(now: Moment) -> float:
        return now.lr if now.is_initial else now.lr * lr_lambda(now.last_epoch)

    leaf = Leaf("multiplicative_lr", number("base_lr", base_lr), get_lr)
    return tabulated(leaf, total_steps, "every rate is a multiple of the one before")


def _function(lr_lambda: Any) -> Callable[[Any], Any]:
    if not callable(lr_lambda):
        raise TypeError(
            f"lr_lambda must be a function of the step; got {lr_lambda!r}. For several "
            f"parameter groups, make one schedule for each."
        )
    return lr_lambda


def _cannot_be_traced(lr_lambda: Callable[[Any], Any]) -> str | None:
    """Return what JAX says, or None."""
    try:
        jax.eval_shape(lr_lambda, jax.ShapeDtypeStruct((), jnp.int32))
    except Exception as error:
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None

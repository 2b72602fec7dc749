"""Negative log likelihood of counts."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._dtypes import promoted
from ._reduce import check_reduction, reduce


def poisson_nll_loss(
    input: jax.Array,
    target: jax.Array,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.poisson_nll_loss``.

    .. math:: \\ell_i = e^{x_i} - y_i x_i \\quad\\text{or}\\quad
              \\ell_i = x_i - y_i \\log(x_i + \\epsilon)

    Args:
      input: :math:`x`, the logarithm of the rate, or the rate itself; any shape, floating.
      target: counts :math:`y`, broadcast against ``input``.
      log_input: ``input`` is the logarithm: the first form.
      full: add Stirling's :math:`\\log y! \\approx y \\log y - y + \\tfrac12 \\log 2 \\pi y`
        where :math:`y > 1`.
      eps: :math:`\\epsilon`, for the second form.
      reduction: ``"mean"`` divides by the number of elements; ``"sum"``; ``"none"`` keeps the
        shape.

    Returns:
      Shape (), or that of ``input`` against ``target`` for ``"none"``; their wider dtype.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: another ``reduction``.
    """
    check_reduction(reduction)
    dtype, [x, y] = promoted(input=input, target=target)
    x, y = jnp.broadcast_arrays(x, y)
    losses = jnp.exp(x) - y * x if log_input else x - y * jnp.log(x + eps)
    if full:
        stirling = y * jnp.log(y) - y + 0.5 * jnp.log(2 * math.pi * y)
        losses = losses + jnp.where(y <= 1, 0, stirling)
    return reduce(losses, reduction, dtype)

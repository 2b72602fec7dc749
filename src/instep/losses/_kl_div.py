"""Kullback-Leibler divergence."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ._reduce import check_reduction, is_mean, reduce


def kl_div(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    log_target: bool = False,
) -> jax.Array:
    """``torch.nn.functional.kl_div``: of ``target`` from ``exp(input)``.

    .. math:: \\ell_i = y_i (\\log y_i - x_i), \\qquad 0 \\log 0 = 0

    Args:
      input: *log* probabilities :math:`x`, any shape, floating.
      target: probabilities :math:`y`, broadcast against ``input``.
      reduction: ``"mean"`` divides by the number of *elements*, which is not the divergence;
        ``"batchmean"`` by the length of the first axis of ``input``, which is; ``"sum"``;
        ``"none"`` keeps the shape.
      log_target: ``target`` holds :math:`\\log y`.

    Returns:
      Shape (), or that of ``input`` against ``target`` for ``"none"``; their wider dtype.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: another ``reduction``.

    References:
      Kullback and Leibler, `On Information and Sufficiency
      <https://doi.org/10.1214/aoms/1177729694>`_, 1951.
    """
    check_reduction(reduction, "none", "mean", "batchmean", "sum")
    dtype, [x, y] = promoted(input=input, target=target)
    x, y = jnp.broadcast_arrays(x, y)
    losses = jnp.exp(y) * (y - x) if log_target else _ylogy(y) - y * x
    weights = None
    if is_mean(reduction, "batchmean") and losses.ndim:  # of the sums over the other axes
        losses = jnp.sum(losses, range(1, losses.ndim))
        rows = np.shape(input)[0] if np.ndim(input) else 1  # without those of a broadcast
        if losses.size not in (0, rows):
            weights = jnp.full_like(losses, rows / losses.size)
    return reduce(losses, reduction, dtype, weights)


@jax.custom_jvp
def _ylogy(y):
    return jnp.where(y == 0, 0, y * jnp.log(y))


@_ylogy.defjvp
def _(primals, tangents):
    ([y], [dy]) = primals, tangents
    one = jnp.where((y == 0) | jnp.isinf(y), jnp.nan, 1)  # y / y, which cannot underflow
    return _ylogy(y), one * (jnp.log(y) + 1) * dy

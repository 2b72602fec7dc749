"""Squared near zero, absolute far from it: Huber's loss and its rescaled form."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .. import ops
from .._dtypes import promoted
from ._checks import check_same_shape
from ._l1 import l1_loss
from ._reduce import check_reduction, reduce


def huber_loss(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    """``torch.nn.functional.huber_loss``.

    .. math:: \\ell_i = w_i \\begin{cases}
                \\tfrac12 d_i^2 & |d_i| < \\delta \\\\
                \\delta (|d_i| - \\tfrac12 \\delta) & \\text{otherwise}
              \\end{cases}, \\qquad d = x - y

    Args:
      input: :math:`x`, any shape, floating.
      target: :math:`y`, the shape of ``input``; other shapes are an error, as in ``mse_loss``.
      reduction: ``"mean"`` divides by the number of elements, with ``weight`` as well: unlike
        ``mse_loss`` and ``l1_loss``, as PyTorch does; ``"sum"``; ``"none"`` keeps the shape.
      delta: :math:`\\delta > 0`.
      weight: :math:`w`, the shape of ``input``.

    Returns:
      Shape (), or the shape of ``input`` for ``"none"``; the wider dtype of ``input`` and
      ``target``. Without elements the mean is NaN.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, ``delta`` is not positive, or another ``reduction``.

    References:
      Huber, `Robust Estimation of a Location Parameter
      <https://doi.org/10.1214/aoms/1177703732>`_, 1964.
    """
    check_reduction(reduction)
    check_same_shape(input=input, target=target, weight=weight)
    if not delta > 0:
        raise ValueError(f"delta must be positive; got {delta}.")
    dtype, [x, y] = promoted(input=input, target=target)
    losses = _huber(x - y, delta)
    if weight is not None:
        losses = losses * jnp.asarray(weight, losses.dtype)
    return reduce(losses, reduction, dtype)


def smooth_l1_loss(
    input: jax.Array,
    target: jax.Array,
    reduction: str = "mean",
    beta: float = 1.0,
) -> jax.Array:
    """``torch.nn.functional.smooth_l1_loss``: Huber's loss with a slope of 1 far from zero.

    .. math:: \\ell_i = \\begin{cases}
                \\tfrac12 d_i^2 / \\beta & |d_i| < \\beta \\\\
                |d_i| - \\tfrac12 \\beta & \\text{otherwise}
              \\end{cases}, \\qquad d = x - y

    Args:
      input: :math:`x`, any shape, floating.
      target: :math:`y`, the shape of ``input``; other shapes are an error, as in ``mse_loss``.
      reduction: ``"mean"`` divides by the number of elements; ``"sum"``; ``"none"`` keeps the
        shape.
      beta: :math:`\\beta \\ge 0`; with 0 this is ``l1_loss``.

    Returns:
      Shape (), or the shape of ``input`` for ``"none"``; the wider dtype of ``input`` and
      ``target``. Without elements the mean is NaN.

    Raises:
      TypeError: neither ``input`` nor ``target`` is floating.
      ValueError: shapes differ, ``beta`` is negative, or another ``reduction``.

    References:
      Girshick, `Fast R-CNN <https://arxiv.org/abs/1504.08083>`_, 2015.
    """
    check_reduction(reduction)
    if beta == 0:
        return l1_loss(input, target, reduction)
    if not beta > 0:
        raise ValueError(f"beta must not be negative; got {beta}.")
    check_same_shape(input=input, target=target)
    dtype, [x, y] = promoted(input=input, target=target)
    return reduce(_huber(x - y, beta) / beta, reduction, dtype)


def _huber(d, delta):
    # d * d, not |d| * |d|: the second derivative of |d| at 0 would be 0.
    far = jnp.abs(d) >= delta
    unknown = jnp.isnan(d)  # a slope of NaN and a second derivative of 0, as PyTorch's
    small = jnp.where(far | unknown, 0, d)
    nan = jnp.where(unknown, d, 0) * jnp.where(unknown, jnp.nan, 0)
    return jnp.where(far, delta * (ops.abs(d) - 0.5 * delta), 0.5 * small * small + nan)

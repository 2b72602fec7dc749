"""Negative log likelihood under a predicted variance."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import dtype_of, promoted
from ..ops import straight_through
from ._checks import check_values, nan_unless
from ._reduce import check_reduction, reduce


def gaussian_nll_loss(
    input: jax.Array,
    target: jax.Array,
    var: jax.Array | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.gaussian_nll_loss``.

    .. math:: \\ell_i = \\tfrac12 \\left( \\log v_i + (x_i - y_i)^2 / v_i \\right), \\qquad
              v = \\max(\\text{var}, \\epsilon)

    The gradient of ``var`` passes through the maximum as if it were not there.

    Args:
      input: :math:`x`, any shape, floating.
      target: :math:`y`, broadcast against ``input``.
      var: variances, not negative: a number, the shape of ``input``, that shape without the
        last axis, or with one axis of length 1.
      full: add :math:`\\tfrac12 \\log 2 \\pi`.
      eps: :math:`\\epsilon`, the smallest variance.
      reduction: ``"mean"`` divides by the number of elements; ``"sum"``; ``"none"`` keeps the
        shape.

    Returns:
      Shape (), or that of ``input`` against ``target`` for ``"none"``; their widest dtype.

    Raises:
      TypeError: none of ``input``, ``target`` and ``var`` is floating.
      ValueError: the shape of ``var``, another ``reduction``, or a negative variance. Where
        JAX traces it (``jit``, ``vmap``, ``grad``) the loss and its gradient are NaN instead;
        see ``checked``.

    References:
      Nix and Weigend, `Estimating the Mean and Variance of the Target Probability
      Distribution <https://doi.org/10.1109/ICNN.1994.374138>`_, 1994.
    """
    check_reduction(reduction)
    check_values("var", var, lambda v: ~(v < 0), "is negative; a variance is not.")
    if np.ndim(var) == 0:  # as a number, not as an array of its own dtype
        var = jnp.asarray(var, dtype_of(input))
    dtype, [x, y, v] = promoted(input=input, target=target, var=var)
    v = _aligned(v * nan_unless(~(v < 0)), x.shape)
    x, y, v = jnp.broadcast_arrays(x, y, v)
    v = straight_through(lambda v: jnp.maximum(v, eps))(v)
    losses = 0.5 * (jnp.log(v) + (x - y) ** 2 / v)
    if full:
        losses = losses + 0.5 * math.log(2 * math.pi)
    return reduce(losses, reduction, dtype)


def _aligned(v, shape):
    """Variances that broadcast against ``shape``."""
    if v.shape in ((), shape):
        return v
    if v.shape == shape[:-1]:
        return v[..., None]
    same_axes = len(v.shape) == len(shape)
    if not same_axes or [n for n, m in zip(v.shape, shape, strict=True) if n != m] != [1]:
        raise ValueError(
            f"var has shape {v.shape}, input has {shape}. var has that shape, or that "
            f"without the last axis, or with one axis of length 1."
        )
    return v

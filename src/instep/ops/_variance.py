"""Variance and standard deviation, with PyTorch's derivative at zero.

``dim`` is an axis, several, or None or ``()`` for all; ``keepdim`` keeps them, of length 1.

Shapes and dtypes: any shape, floating or complex; a variance is real.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from ._axes import axes_of
from ._elementwise import computing
from ._reduction import Dim


def var(
    input: jax.Array, dim: Dim = None, *, correction: float | None = 1, keepdim: bool = False
) -> jax.Array:
    """``torch.var``.

    .. math:: \\sigma^2 = \\frac{1}{\\max(0, n - \\text{correction})} \\sum_i (x_i - \\bar x)^2

    Args:
      input: floating or complex.
      dim: axes.
      correction: taken off the count; 0 is the biased variance. None is 1.
      keepdim: keep the axes.
    """
    return var_mean(input, dim, correction=correction, keepdim=keepdim)[0]


def std(
    input: jax.Array, dim: Dim = None, *, correction: float | None = 1, keepdim: bool = False
) -> jax.Array:
    """``torch.std``: the square root of ``var``; where it is 0, so is its gradient."""
    return std_mean(input, dim, correction=correction, keepdim=keepdim)[0]


def var_mean(
    input: jax.Array, dim: Dim = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.var_mean``: ``var`` and ``mean``."""
    variance, mean = _moments(input, dim, correction, keepdim)
    return variance.astype(_real(input.dtype)), mean.astype(input.dtype)


def std_mean(
    input: jax.Array, dim: Dim = None, *, correction: float | None = 1, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.std_mean``: ``std`` and ``mean``."""
    variance, mean = _moments(input, dim, correction, keepdim)
    return _root(variance).astype(_real(input.dtype)), mean.astype(input.dtype)


def _moments(input, dim, correction, keepdim):
    x = input.astype(computing(input.dtype))
    axes = axes_of(x, dim)
    n = math.prod(x.shape[i] for i in axes)
    mean = jnp.mean(x, axes, keepdims=True)
    off = x - mean
    square = (off * off.conj()).real if jnp.iscomplexobj(off) else off * off
    total = jnp.sum(square, axes, keepdims=True)
    left = max(0, n - (1 if correction is None else correction))
    variance = total / left if left else total / jnp.zeros_like(total)
    return (variance, mean) if keepdim else (variance.squeeze(axes), mean.squeeze(axes))


@jax.custom_jvp
def _root(x):
    return jnp.sqrt(x)


@_root.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    root = _root(x)
    zero = root == 0
    return root, jnp.where(zero, 0, dx / (2 * jnp.where(zero, 1, root)))


def _real(dtype):
    return jnp.finfo(dtype).dtype

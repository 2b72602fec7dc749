"""Running sums, products and extrema along one axis.

Shapes and dtypes: any shape and dtype, of extrema any but complex; sums as in ``sum``, indices
int64, or int32 while x64 is off.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._arithmetic import sub
from ._axes import integers, on_axis
from ._comparison import ne
from ._elementwise import computing
from ._promotion import as_floating, promote
from ._reduction import _summand


def cumsum(input: jax.Array, dim: int, *, dtype: Any = None) -> jax.Array:
    """``torch.cumsum``: integers and booleans are counted in int64, halves in float32."""
    return _scanned(lax.cumsum, input, dim, dtype)


def cumprod(input: jax.Array, dim: int, *, dtype: Any = None) -> jax.Array:
    """``torch.cumprod``: the gradient is exact where factors are 0, too."""
    return _scanned(lax.cumprod, input, dim, dtype)


def logcumsumexp(input: jax.Array, dim: int) -> jax.Array:
    """``torch.logcumsumexp``."""
    dtype = as_floating(input.dtype)
    x, axis = on_axis(input.astype(computing(dtype)), dim)
    return lax.cumlogsumexp(x, axis).reshape(input.shape).astype(dtype)


def cummax(input: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
    """``torch.cummax``: the largest so far and its last index, which has the gradient.

    NaN is the largest.
    """
    return _running(input, dim, jnp.greater_equal)


def cummin(input: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
    """``torch.cummin``: as ``cummax``, of the smallest; NaN is the smallest, too."""
    return _running(input, dim, jnp.less_equal)


def diff(
    input: jax.Array,
    n: int = 1,
    dim: int = -1,
    prepend: jax.Array | None = None,
    append: jax.Array | None = None,
) -> jax.Array:
    """``torch.diff``: differences of neighbours, ``n`` times; of booleans, exclusive or."""
    if n == 0:
        return input
    parts = [x for x in (prepend, input, append) if x is not None]
    x = jnp.concatenate(promote(*parts), dim) if len(parts) > 1 else input
    for _ in range(n):
        later = lax.slice_in_dim(x, min(1, x.shape[dim]), None, axis=dim)
        sooner = lax.slice_in_dim(x, 0, max(0, x.shape[dim] - 1), axis=dim)
        x = (ne if x.dtype == bool else sub)(later, sooner)
    return x


def trapezoid(
    y: jax.Array, x: jax.Array | None = None, *, dx: float = 1, dim: int = -1
) -> jax.Array:
    """``torch.trapezoid``: the integral of ``y`` over ``x``, or over steps of ``dx``."""
    areas, axis = _areas(y, x, dx, dim)
    return jnp.sum(areas, axis)


def cumulative_trapezoid(
    y: jax.Array, x: jax.Array | None = None, *, dx: float = 1, dim: int = -1
) -> jax.Array:
    """``torch.cumulative_trapezoid``: the integral up to each point but the first."""
    areas, axis = _areas(y, x, dx, dim)
    return lax.cumsum(areas, axis)


def _areas(y, x, dx, dim):
    axis = dim % y.ndim
    y = y.astype(as_floating(y.dtype))
    n = y.shape[axis]
    pairs = lax.slice_in_dim(y, min(1, n), n, axis=axis)
    pairs = pairs + lax.slice_in_dim(y, 0, max(0, n - 1), axis=axis)
    if x is None:
        return pairs * (dx / 2), axis
    x, axis = (x, axis) if x.ndim == y.ndim else (_on(x, axis, y.ndim), axis)
    pairs, width = promote(pairs, diff(x, dim=axis))
    return pairs * width / 2, axis


def _on(x, axis, ndim):
    """A vector along ``axis``, or what is left of the axes before it."""
    if x.ndim == 1:
        return x.reshape([x.size if i == axis else 1 for i in range(ndim)])
    return x.reshape((1,) * (ndim - x.ndim) + x.shape)


def _scanned(function, input, dim, dtype):
    x, dtype = _summand(input, dtype)
    x, axis = on_axis(x, dim)
    return function(x, axis).reshape(input.shape).astype(dtype)


def _running(input, dim, at_least):
    x, axis = on_axis(input, dim)

    def later(a, b):
        (x, i), (y, j) = a, b
        takes = (y != y) | ((x == x) & at_least(y, x))
        return jnp.where(takes, y, x), jnp.where(takes, j, i)

    index = lax.broadcasted_iota(integers(), x.shape, axis)
    _, index = lax.associative_scan(later, (lax.stop_gradient(x), index), axis=axis)
    values = jnp.take_along_axis(x, index, axis)
    return values.reshape(input.shape), index.reshape(input.shape)

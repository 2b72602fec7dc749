"""Sums, products and the like over axes, with PyTorch's dtypes.

``dim`` is an axis, several, or None or ``()`` for all; ``keepdim`` keeps them, of length 1.

Shapes and dtypes: any shape and dtype; sums and products of integers and booleans are int64
(int32 while x64 is off), others keep their dtype, and ``dtype`` is cast to before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._axes import axes_of, integers
from ._elementwise import computing
from ._promotion import as_floating


Dim = int | Sequence[int] | None


def sum(
    input: jax.Array, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> jax.Array:
    """``torch.sum``: integers and booleans are counted in int64, halves in float32."""
    x, dtype = _summand(input, dtype)
    return jnp.sum(x, axes_of(x, dim), keepdims=keepdim).astype(dtype)


def nansum(
    input: jax.Array, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> jax.Array:
    """``torch.nansum``: NaN counts as 0, and has a slope of 0."""
    x, dtype = _summand(input, dtype)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        x = jnp.where(jnp.isnan(x), 0, x)
    return jnp.sum(x, axes_of(x, dim), keepdims=keepdim).astype(dtype)


def mean(
    input: jax.Array, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> jax.Array:
    """``torch.mean`` of floating or complex numbers."""
    x, dtype = _summand(input, dtype)
    return jnp.mean(x, axes_of(x, dim), keepdims=keepdim).astype(dtype)


def nanmean(
    input: jax.Array, dim: Dim = None, keepdim: bool = False, *, dtype: Any = None
) -> jax.Array:
    """``torch.nanmean``: the mean of what is not NaN; NaN if there is nothing."""
    x, dtype = _summand(input, dtype)
    axes, here = axes_of(x, dim), ~jnp.isnan(x)
    count = jnp.sum(here, axes, keepdims=keepdim).astype(x.dtype)
    return (jnp.sum(jnp.where(here, x, 0), axes, keepdims=keepdim) / count).astype(dtype)


def prod(
    input: jax.Array, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> jax.Array:
    """``torch.prod``: the gradient is exact where factors are 0, too."""
    x, dtype = _summand(input, dtype)
    return jnp.prod(x, axes_of(x, dim), keepdims=keepdim).astype(dtype)


def all(input: jax.Array, dim: Dim = None, keepdim: bool = False) -> jax.Array:
    """``torch.all``; of uint8, uint8."""
    made = jnp.all(input.astype(bool), axes_of(input, dim), keepdims=keepdim)
    return made.astype(input.dtype) if input.dtype == jnp.uint8 else made


def any(input: jax.Array, dim: Dim = None, keepdim: bool = False) -> jax.Array:
    """``torch.any``; of uint8, uint8."""
    made = jnp.any(input.astype(bool), axes_of(input, dim), keepdims=keepdim)
    return made.astype(input.dtype) if input.dtype == jnp.uint8 else made


def count_nonzero(input: jax.Array, dim: Dim = None) -> jax.Array:
    """``torch.count_nonzero``."""
    return jnp.sum(input.astype(bool), axes_of(input, dim), dtype=integers())


def logsumexp(input: jax.Array, dim: Dim, keepdim: bool = False) -> jax.Array:
    """``torch.logsumexp``: where it is infinite, of either sign, the slope is NaN."""
    dtype = as_floating(input.dtype)
    x = input.astype(computing(dtype))
    axes = axes_of(x, dim)
    made = _logsumexp(x, axes)
    return (made if keepdim else jnp.squeeze(made, axes)).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _logsumexp(x, axes):
    if x.size == 0:
        shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
        return jnp.full(shape, -jnp.inf, x.dtype)
    return jax.nn.logsumexp(x, axes, keepdims=True)


@_logsumexp.defjvp
def _(axes, primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _logsumexp(x, axes)
    return y, jnp.sum(jnp.exp(x - y) * dx, axes, keepdims=True)


def _summand(input: jax.Array, dtype: Any) -> tuple[jax.Array, Any]:
    """The array in the dtype to sum in, and the dtype of the sum."""
    if dtype is None:
        dtype = input.dtype if jnp.issubdtype(input.dtype, jnp.inexact) else integers()
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return input.astype(computing(dtype)), dtype

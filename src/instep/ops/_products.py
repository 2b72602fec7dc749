"""Products of vectors and of chains of matrices.

Shapes and dtypes: vectors along an axis, of shapes that broadcast, and matrices
``(..., N, N)``; any dtype for sums of products, floating or complex for functions of a matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.scipy.linalg as scipy_linalg

from ._promotion import promote


def trace(input: jax.Array) -> jax.Array:
    """``torch.trace`` of a matrix; of integers, in int64."""
    made = jnp.trace(input)
    if jnp.issubdtype(input.dtype, jnp.inexact):
        return made
    return made.astype(jax.dtypes.canonicalize_dtype("int64"))


def cross(input: jax.Array, other: jax.Array, dim: int | None = None) -> jax.Array:
    """``torch.cross``: along ``dim``, or the first axis of length 3.

    Raises:
      ValueError: there is no such axis.
    """
    if dim is None:
        dim = next((i for i, n in enumerate(input.shape) if n == 3), None)
        if dim is None:
            raise ValueError(f"cross needs an axis of length 3; shape is {input.shape}.")
    return linalg_cross(input, other, dim=dim)


def linalg_cross(input: jax.Array, other: jax.Array, *, dim: int = -1) -> jax.Array:
    """``torch.linalg.cross``: vectors of length 3 along ``dim``, the rest broadcasts."""
    x, y = promote(input, other)
    x, y = (jnp.broadcast_to(a, jnp.broadcast_shapes(x.shape, y.shape)) for a in (x, y))
    return jnp.cross(x, y, axis=dim)


def vecdot(x: jax.Array, y: jax.Array, *, dim: int = -1) -> jax.Array:
    """``torch.linalg.vecdot``: the sum of ``conj(x) * y`` along ``dim``."""
    x, y = promote(x, y)
    return jnp.sum(jnp.conj(x) * y, dim)


def multi_dot(tensors: Sequence[jax.Array]) -> jax.Array:
    """``torch.linalg.multi_dot``: in the order that needs the fewest products."""
    return jnp.linalg.multi_dot(list(tensors))


def matrix_power(input: jax.Array, n: int) -> jax.Array:
    """``torch.linalg.matrix_power``; of a negative ``n``, that of the inverse."""
    return jnp.linalg.matrix_power(input, n)


def matrix_exp(input: jax.Array) -> jax.Array:
    """``torch.linalg.matrix_exp``."""
    return scipy_linalg.expm(input) if input.size else input

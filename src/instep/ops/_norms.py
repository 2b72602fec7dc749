"""Norms of vectors on any axes, and distances made of them.

Shapes and dtypes: any shape, floating or complex; norms are real.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ._axes import axes_of
from ._distance import vector_norm
from ._elementwise import computing
from ._extremum import amax, amin
from ._linalg import svdvals
from ._promotion import promote
from ._reduction import Dim, sum
from ._unary import abs as absolute


def norm(
    input: jax.Array,
    p: float | None = 2,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> jax.Array:
    """``torch.linalg.vector_norm`` over any axes, see ``vector_norm``.

    Args:
      input: floating or complex.
      p: exponent; None is 2.
      dim: axes; None or none: all.
      keepdim: keep the axes, of length 1.
      dtype: to compute in, and of the result.
    """
    if dtype is not None:
        input = input.astype(jax.dtypes.canonicalize_dtype(dtype))
    x = absolute(input) if jnp.iscomplexobj(input) else input
    axes = axes_of(x, dim)
    rest = [i for i in range(x.ndim) if i not in axes]
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    n = math.prod(x.shape[i] for i in axes)
    rows = jnp.transpose(x, (*rest, *axes)).reshape(*(x.shape[i] for i in rest), n)
    if n == 0:
        rows = jnp.zeros((*rows.shape[:-1], 1), computing(x.dtype)).astype(x.dtype)
    made = vector_norm(rows, 2 if p is None else p, dim=-1)
    return made.reshape(kept) if keepdim else made


def dist(input: jax.Array, other: jax.Array, p: float = 2) -> jax.Array:
    """``torch.dist``: the norm of the difference, over all axes."""
    x, y = promote(input, other)
    return norm(x - y, p)


def matrix_norm(
    input: jax.Array,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> jax.Array:
    """``torch.linalg.matrix_norm``.

    Args:
      input: floating or complex.
      ord: ``"fro"``, ``"nuc"`` (the sum of the singular values), 2 or -2 (the largest,
        smallest of them), 1 or -1 (the largest, smallest sum of a column), infinity or minus
        infinity (of a row).
      dim: axes of rows and of columns.
      keepdim: keep the axes, of length 1.
      dtype: to compute in, and of the result.

    Raises:
      ValueError: another ``ord``.
    """
    if dtype is not None:
        input = input.astype(jax.dtypes.canonicalize_dtype(dtype))
    row, column = (d % input.ndim for d in dim)
    if ord == "fro":
        return norm(input, 2, (row, column), keepdim)
    if ord in ("nuc", 2, -2):
        values = svdvals(jnp.moveaxis(input, (row, column), (-2, -1)))
        made = {"nuc": sum, 2: amax, -2: amin}[ord](values, -1)
        return jnp.expand_dims(made, sorted((row, column))) if keepdim else made
    if isinstance(ord, str) or abs(ord) not in (1, math.inf):
        raise ValueError(f"{ord=} must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf.")
    summed, other = (row, column) if abs(ord) == 1 else (column, row)
    sums = sum(absolute(input), summed, keepdim=True)
    made = (amax if ord > 0 else amin)(sums, other, keepdim=True)
    return made if keepdim else made.squeeze((row, column))


def linalg_norm(
    input: jax.Array,
    ord: float | str | None = None,
    dim: Dim = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> jax.Array:
    """``torch.linalg.norm``: of two axes and with an ``ord``, ``matrix_norm``."""
    if dim is None:
        axes = tuple(range(input.ndim))
    else:
        axes = (dim,) if isinstance(dim, int) else tuple(dim)
    if isinstance(ord, str) or (ord is not None and len(axes) == 2):
        return matrix_norm(input, ord, axes, keepdim, dtype=dtype)
    return norm(input, ord, dim, keepdim, dtype=dtype)


def renorm(input: jax.Array, p: float, dim: int, maxnorm: float) -> jax.Array:
    """``torch.renorm``: the slices along ``dim`` whose norm is larger are shortened to it."""
    dims = tuple(i for i in range(input.ndim) if i != dim % input.ndim)
    length = norm(input, p, dims, True)
    scale = jnp.where(length > maxnorm, maxnorm / (length + 1e-7), 1)
    return input * scale.astype(input.dtype)

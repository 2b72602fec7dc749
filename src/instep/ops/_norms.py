"""Norms of vectors on any axes, and distances made of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ._axes import axes_of
from ._distance import vector_norm
from ._elementwise import computing
from ._promotion import promote
from ._reduction import Dim
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

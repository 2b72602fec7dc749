"""Norms of vectors and distances between them, with PyTorch's derivatives at zeros."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from .._dtypes import wide


def pairwise_distance(
    x1: jax.Array, x2: jax.Array, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> jax.Array:
    """``torch.nn.functional.pairwise_distance``.

    .. math:: \\lVert x_1 - x_2 + \\epsilon \\rVert_p

    Args:
      x1, x2: vectors on the last axis, shapes ``(..., D)`` that broadcast, floating.
      p: exponent of the norm, see ``vector_norm``.
      eps: :math:`\\epsilon`, added to every element of the difference.
      keepdim: keep the last axis, of length 1.

    Returns:
      Shape ``(...)``.
    """
    return vector_norm(x1 - x2 + eps, p, dim=-1, keepdim=keepdim)


def vector_norm(
    x: jax.Array, ord: float = 2.0, *, dim: int, keepdim: bool = False
) -> jax.Array:
    """``torch.linalg.vector_norm`` over one axis.

    .. math:: \\lVert x \\rVert_p = \\left( \\sum_i |x_i|^p \\right)^{1/p}

    The gradient at the zero vector is 0, where ``jnp.linalg.norm`` has NaN. That of the
    largest (or smallest) element, with ``ord`` of infinity, is shared evenly by ties.

    Args:
      x: floating.
      ord: :math:`p`, any number; infinity is the largest magnitude, minus infinity the
        smallest, 0 the number of elements that are not 0.
      dim: axis of the vectors.
      keepdim: keep that axis, of length 1.

    Returns:
      The shape of ``x`` without ``dim``; its dtype, computed in at least float32.
    """
    norm = _vector_norm(x.astype(wide(x.dtype)), ord, dim).astype(x.dtype)
    return norm if keepdim else jnp.squeeze(norm, dim)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _vector_norm(x, ord, axis):
    """``axis`` is kept, of length 1."""
    size = jnp.abs(x)
    if ord == jnp.inf:
        return jnp.max(size, axis, keepdims=True)
    if ord == -jnp.inf:
        return jnp.min(size, axis, keepdims=True)
    if ord == 0:
        return jnp.sum(x != 0, axis, keepdims=True).astype(x.dtype)
    if ord == 1:
        return jnp.sum(size, axis, keepdims=True)
    if ord == 2:
        return jnp.sqrt(jnp.sum(x * x, axis, keepdims=True))
    return jnp.sum(size**ord, axis, keepdims=True) ** (1 / ord)


@_vector_norm.defjvp
def _(ord, axis, primals, tangents):
    ([x], [dx]) = primals, tangents
    norm = _vector_norm(x, ord, axis)
    return norm, jnp.sum(_slope(x, norm, ord, axis) * dx, axis, keepdims=True)


def _slope(x, norm, ord, axis):
    """The derivative of ``norm`` by each element: sign(x) (|x| / norm)^(p - 1)."""
    if ord == 0:
        return jnp.zeros_like(x)
    sign = jnp.where(x > 0, 1, jnp.where(x < 0, -1, 0)).astype(x.dtype)  # 0 for NaN
    if ord == 1:
        return sign
    if ord == 2:
        return jnp.where(norm == 0, 0, x / jnp.where(norm == 0, 1, norm))
    size = jnp.abs(x)
    if abs(ord) == jnp.inf:
        ties = (size == norm) | (jnp.isnan(size) & jnp.isnan(norm))
        ties = ties.astype(x.dtype)
        return sign * ties / jnp.sum(ties, axis, keepdims=True)
    if ord < 1:  # |x|^(p - 1) is infinite where x is 0
        return sign * jnp.where(x == 0, 0, size ** (ord - 1)) * norm ** (1 - ord)
    return sign * size ** (ord - 1) * jnp.where(norm == 0, 0, norm ** (1 - ord))

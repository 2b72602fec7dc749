"""Norms of vectors and distances between them, with PyTorch's derivatives at zeros."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import wide
from ._elementwise import sloped
from ._promotion import promote
from ._straight_through import straight_through


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


def cosine_similarity(
    x1: jax.Array, x2: jax.Array, dim: int = 1, eps: float = 1e-8
) -> jax.Array:
    """``torch.nn.functional.cosine_similarity``.

    .. math:: \\frac{x_1 \\cdot x_2}{\\max(\\lVert x_1 \\rVert, \\epsilon)
              \\max(\\lVert x_2 \\rVert, \\epsilon)}

    PyTorch's derivative is that without the maxima, also of a norm below :math:`\\epsilon`.

    Args:
      x1, x2: floating, shapes that broadcast.
      dim: axis of the vectors.
      eps: the least norm.

    Returns:
      The broadcast shape without ``dim``.
    """
    x1, x2 = jnp.broadcast_arrays(*promote(x1, x2))
    if x1.ndim == 0:
        x1, x2 = x1[None], x2[None]
    at_least = straight_through(lambda norm: jnp.maximum(norm, eps))
    x1, x2 = (x / at_least(vector_norm(x, dim=dim, keepdim=True)) for x in (x1, x2))
    return jnp.sum(x1 * x2, dim)


def cdist(
    x1: jax.Array,
    x2: jax.Array,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> jax.Array:
    """``torch.cdist``: the distance of every vector to every other.

    The gradient of the largest difference, with ``p`` of infinity, goes to all ties in full.

    Args:
      x1, x2: vectors on the last axis, shapes ``(..., P, M)`` and ``(..., R, M)`` whose first
        axes broadcast, floating.
      p: exponent of the norm, from 0 to infinity.
      compute_mode: whether Euclidean distances come from a matrix product, which is fast, and
        rounds the distances of close vectors: ``"use_mm_for_euclid_dist"``,
        ``"donot_use_mm_for_euclid_dist"``, or that which PyTorch chooses, a product for more
        than 25 vectors.

    Returns:
      Shape ``(..., P, R)``.

    Raises:
      ValueError: a negative ``p``, or another ``compute_mode``.
    """
    if compute_mode not in COMPUTE_MODES:
        raise ValueError(f"{compute_mode=} must be one of {', '.join(COMPUTE_MODES)}.")
    x1, x2 = promote(x1, x2)
    many = max(x1.shape[-2], x2.shape[-2]) > 25
    if p == 2 and (many, True, False)[COMPUTE_MODES.index(compute_mode)]:
        return _euclidean(x1, x2)
    return _distance(jnp.expand_dims(x1, -2) - jnp.expand_dims(x2, -3), p)


COMPUTE_MODES = (
    "use_mm_for_euclid_dist_if_necessary",
    "use_mm_for_euclid_dist",
    "donot_use_mm_for_euclid_dist",
)


def pdist(input: jax.Array, p: float = 2.0) -> jax.Array:
    """``torch.nn.functional.pdist``: the distances of all pairs i < j, in their order.

    Args:
      input: shape ``(N, M)``, floating.
      p: exponent of the norm, from 0 to infinity.

    Returns:
      Shape ``(N (N - 1) / 2,)``.

    Raises:
      ValueError: a negative ``p``.
    """
    i, j = np.triu_indices(len(input), 1)
    return _distance(input[i] - input[j], p)


def _distance(difference, p):
    if p < 0:
        raise ValueError(f"{p=} must be 0 or more.")
    if difference.shape[-1] == 0:
        return jnp.zeros(difference.shape[:-1], difference.dtype)
    if p == jnp.inf:
        return _largest(difference)
    return vector_norm(difference, p, dim=-1)


@jax.custom_jvp
def _largest(x):
    return jnp.max(jnp.abs(x), -1)


@_largest.defjvp
def _(primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _largest(x)
    ties = jnp.abs(x) == jnp.expand_dims(y, -1)
    return y, jnp.sum(jnp.where(ties, jnp.sign(x) * dx, 0), -1)


@jax.custom_jvp
def _euclidean(x1, x2):
    squares = jnp.sum(x1 * x1, -1, keepdims=True) + jnp.sum(x2 * x2, -1, keepdims=True).mT
    return jnp.sqrt(jnp.maximum(squares - 2 * jnp.matmul(x1, x2.mT), 0))


@_euclidean.defjvp
def _(primals, tangents):
    (x1, x2), (dx1, dx2) = primals, tangents
    y = _euclidean(x1, x2)
    own = jnp.sum(x1 * dx1, -1, keepdims=True) + jnp.sum(x2 * dx2, -1, keepdims=True).mT
    d = own - jnp.matmul(dx1, x2.mT) - jnp.matmul(x1, dx2.mT)
    return y, jnp.where(y == 0, 0, d / jnp.where(y == 0, 1, y))


def vector_norm(
    x: jax.Array, ord: float = 2.0, *, dim: int, keepdim: bool = False
) -> jax.Array:
    """``torch.linalg.vector_norm`` over one axis.

    .. math:: \\lVert x \\rVert_p = \\left( \\sum_i |x_i|^p \\right)^{1/p}

    The gradient at the zero vector is 0, where ``jnp.linalg.norm`` has NaN. That of the
    largest (or smallest) element, with ``ord`` of infinity, is shared evenly by ties.

    Args:
      x: any shape, floating.
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
    none = (norm == 0) & (1 < ord < jnp.inf)
    return norm, jnp.sum(sloped(dx, _slope(x, norm, ord, axis), none), axis, keepdims=True)


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

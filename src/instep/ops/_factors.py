"""What is solved with, and made of, the triangular and orthogonal factors of a matrix.

Shapes and dtypes: matrices ``(..., N, N)``; float32, float64, complex64 or complex128.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from ._linalg import cholesky, eye_like, solve_triangular


def cholesky_ex(
    A: jax.Array, *, upper: bool = False, check_errors: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.cholesky_ex``: the factor, and 0 or which leading minor is not positive.

    Where there is one the factor is NaN; PyTorch leaves what it has, or raises with
    ``check_errors``.

    Args:
      A: shape ``(..., N, N)``; one triangle is read.
      upper: the other triangle, and the other factor.
      check_errors: not read.
    """
    del check_errors
    lower = jnp.conj(jnp.triu(A).mT) if upper else jnp.tril(A)
    return cholesky(A, upper=upper), _first_minor(lax.stop_gradient(lower))


def _first_minor(A):
    def eliminate(carry, k):
        A, info = carry
        pivot = jnp.real(lax.dynamic_index_in_dim(A, k, -1, False))
        pivot = lax.dynamic_index_in_dim(pivot, k, -1, False)
        info = jnp.where((info == 0) & ~(pivot > 0), k + 1, info)
        column = lax.dynamic_index_in_dim(A, k, -1, False)
        share = column / pivot[..., None].astype(A.dtype)
        return (A - share[..., :, None] * jnp.conj(column)[..., None, :], info), None

    info = jnp.zeros(A.shape[:-2], jnp.int32)
    order = jnp.arange(A.shape[-1], dtype=jnp.int32)
    return lax.scan(eliminate, (A, info), order)[0][1] if A.size else info


def cholesky_solve(B: jax.Array, L: jax.Array, upper: bool = False) -> jax.Array:
    """``torch.cholesky_solve``: X of ``L L^H X = B``, or of ``L^H L X = B`` if ``upper``.

    Args:
      B: shape ``(..., N, K)``.
      L: shape ``(..., N, N)``; one triangle is read.
      upper: which.
    """
    return _cholesky_solve(B, L, upper)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _cholesky_solve(B, L, upper):
    first, last = (jnp.conj(L.mT), L) if upper else (L, jnp.conj(L.mT))
    return solve_triangular(last, solve_triangular(first, B, upper=False), upper=True)


@_cholesky_solve.defjvp
def _(upper, primals, tangents):
    """That of all of L, as in PyTorch, although one triangle is read."""
    (B, L), (dB, dL) = primals, tangents
    X = _cholesky_solve(B, L, upper)
    product = jnp.conj(dL.mT) @ L if upper else dL @ jnp.conj(L.mT)
    dA = product + jnp.conj(product.mT)
    return X, _cholesky_solve(dB - dA @ X, L, upper)


def cholesky_inverse(L: jax.Array, upper: bool = False) -> jax.Array:
    """``torch.cholesky_inverse``: the inverse of the matrix whose factor is ``L``."""
    return cholesky_solve(eye_like(L), L, upper)


def triangular_solve(
    b: jax.Array,
    A: jax.Array,
    upper: bool = True,
    transpose: bool = False,
    unitriangular: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """``torch.triangular_solve``: X of ``A X = b``, and a copy of ``A``.

    Args:
      b: shape ``(..., N, K)``.
      A: shape ``(..., N, N)``; one triangle is read.
      upper: which.
      transpose: solve with the transpose of A.
      unitriangular: its diagonal is taken to be 1.
    """
    batch = jnp.broadcast_shapes(A.shape[:-2], b.shape[:-2])
    A = jnp.broadcast_to(A, (*batch, *A.shape[-2:]))
    given = A.mT if transpose else A
    X = solve_triangular(given, b, upper=upper != transpose, unitriangular=unitriangular)
    return X, A


def householder_product(input: jax.Array, tau: jax.Array) -> jax.Array:
    """``torch.linalg.householder_product``: the first columns of the product of reflections.

    .. math:: H_1 H_2 \\cdots H_k, \\quad H_i = I - \\tau_i v_i v_i^H

    Args:
      input: shape ``(..., M, N)``; v_i is its column i below the diagonal, where it is 1.
      tau: shape ``(..., k)``.
    """
    k = tau.shape[-1]
    below = jnp.tril(input[..., :k], -1)
    V, start = below + eye_like(below), eye_like(input)

    def reflect(Q, vector):
        v, t = vector
        along = jnp.conj(v)[..., None, :] @ Q
        return Q - t[..., None, None] * (v[..., :, None] * along), None

    reflections = jnp.moveaxis(V, -1, 0), jnp.moveaxis(tau, -1, 0)
    return lax.scan(reflect, start, reflections, reverse=True)[0] if k else start

"""The LU factors of matrices, and what is solved with them: ``A = P L U``.

``LU`` holds L below its diagonal of ones and U; ``pivots`` counts rows from 1, as LAPACK.

Shapes and dtypes: ``A`` is ``(..., M, N)``, to solve with ``(..., N, N)``; float32, float64,
complex64 or complex128. Pivots and numbers of rows are int32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._linalg import eye_like, solve, solve_triangular


def lu_factor(A: jax.Array, *, pivot: bool = True) -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.lu_factor``: ``LU`` and the pivots, int32; zeros in U, where it raises.

    Args:
      A: shape ``(..., M, N)``.
      pivot: must be true.
    """
    return lu_factor_ex(A, pivot=pivot)[:2]


def lu_factor_ex(
    A: jax.Array, *, pivot: bool = True, check_errors: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.linalg.lu_factor_ex``: ``lu_factor``, and which number of U's diagonal is 0.

    Args:
      A: shape ``(..., M, N)``.
      pivot: must be true.
      check_errors: not read; PyTorch raises if there is a 0.

    Raises:
      NotImplementedError: without pivots, which PyTorch has on a GPU only.
    """
    del check_errors
    if not pivot:
        raise NotImplementedError("pivot=False: only the factors with pivots are here.")
    LU, pivots, _ = lax.linalg.lu(A)
    zero = jnp.diagonal(LU, axis1=-2, axis2=-1) == 0
    place = jnp.argmax(zero, -1).astype(jnp.int32) + 1 if zero.shape[-1] else jnp.int32(0)
    info = jnp.where(zero.any(-1), place, jnp.int32(0))
    return LU, pivots + 1, info


def lu_unpack(
    LU: jax.Array, pivots: jax.Array, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.lu_unpack``: P, L and U; what is not asked for is empty.

    Args:
      LU: shape ``(..., M, N)``.
      pivots: shape ``(..., min(M, N))``.
      unpack_data: make L and U.
      unpack_pivots: make P.
    """
    P = L = U = jnp.zeros((0,), LU.dtype)
    rows, columns = LU.shape[-2:]
    if unpack_pivots:
        order = lax.linalg.lu_pivots_to_permutation(pivots - 1, rows)
        P = jnp.eye(rows, dtype=LU.dtype)[order].mT
    if unpack_data:
        k = min(rows, columns)
        below = jnp.tril(LU[..., :k], -1)
        L = below + eye_like(below)
        U = jnp.triu(LU[..., :k, :])
    return P, L, U


def lu(A: jax.Array, *, pivot: bool = True) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.linalg.lu``: P, L and U."""
    return lu_unpack(*lu_factor(A, pivot=pivot))


def lu_solve(
    LU: jax.Array,
    pivots: jax.Array,
    B: jax.Array,
    *,
    left: bool = True,
    adjoint: bool = False,
) -> jax.Array:
    """``torch.linalg.lu_solve``: X of ``A X = B``, or of ``X A = B`` if not ``left``.

    Args:
      LU: the factors of A, shape ``(..., N, N)``.
      pivots: shape ``(..., N)``.
      B: matrices; batches broadcast.
      left: the side of A.
      adjoint: solve with the conjugate transpose of A.
    """
    if not left:
        Bh = jnp.conj(B.mT)
        return jnp.conj(lu_solve(LU, pivots, Bh, adjoint=not adjoint).mT)
    P, L, U = lu_unpack(LU, pivots)
    if adjoint:
        Y = solve_triangular(jnp.conj(U.mT), B, upper=False)
        return P @ solve_triangular(jnp.conj(L.mT), Y, upper=True, unitriangular=True)
    Y = solve_triangular(L, P.mT @ B, upper=False, unitriangular=True)
    return solve_triangular(U, Y, upper=True)


def inv_ex(A: jax.Array, *, check_errors: bool = False) -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.inv_ex``: the inverse, and the number of ``lu_factor_ex``."""
    return jnp.linalg.inv(A), lu_factor_ex(A, check_errors=check_errors)[2]


def solve_ex(
    A: jax.Array, B: jax.Array, *, left: bool = True, check_errors: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.solve_ex``: X, and the number of ``lu_factor_ex``."""
    return solve(A, B, left=left), lu_factor_ex(A, check_errors=check_errors)[2]


def tensorinv(A: jax.Array, ind: int = 2) -> jax.Array:
    """``torch.linalg.tensorinv``: the inverse of A as a map from its last axes to ``ind``."""
    shape = A.shape[ind:] + A.shape[:ind]
    size = 1
    for n in A.shape[:ind]:
        size *= n
    return jnp.linalg.inv(A.reshape(size, -1)).reshape(shape)

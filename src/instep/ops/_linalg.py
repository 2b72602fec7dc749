"""Inverses, systems of equations and decompositions of matrices, in batches.

Eigenvectors and singular vectors are fixed up to a phase only, which the library chooses.

Shapes and dtypes: ``A`` is ``(..., N, N)``, of ``qr``, ``svd`` and ``pinv`` ``(..., M, N)``, B
``(..., N, K)``; float32, float64, complex64 or complex128. Singular and eigenvalues are real.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._promotion import promote


def eye_like(A: jax.Array) -> jax.Array:
    """The identity, as many times and in the shape of ``A``."""
    return jnp.broadcast_to(jnp.eye(*A.shape[-2:], dtype=A.dtype), A.shape)


def inv(A: jax.Array) -> jax.Array:
    """``torch.linalg.inv``; infinite or NaN where PyTorch raises."""
    return jnp.linalg.inv(A)


def solve(A: jax.Array, B: jax.Array, *, left: bool = True) -> jax.Array:
    """``torch.linalg.solve``: X of ``A X = B``, or of ``X A = B`` if not ``left``.

    Args:
      A: shape ``(..., N, N)``.
      B: vectors ``(..., N)``, if all of its axes but the last are A's, else matrices.
      left: the side of ``A``.
    """
    vectors = B.ndim == 1 or (A.ndim - 1 == B.ndim and B.shape == A.shape[:-1])
    if vectors:
        B = B[..., None]
    if not left:
        return solve(A.mT, B.mT).mT
    batch = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    A = jnp.broadcast_to(A, (*batch, *A.shape[-2:]))
    X = jnp.linalg.solve(A, jnp.broadcast_to(B, (*batch, *B.shape[-2:])))
    return X[..., 0] if vectors else X


def solve_triangular(
    A: jax.Array, B: jax.Array, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> jax.Array:
    """``torch.linalg.solve_triangular``: one triangle of ``A`` is read."""
    batch = jnp.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    return lax.linalg.triangular_solve(
        jnp.broadcast_to(A, (*batch, *A.shape[-2:])),
        jnp.broadcast_to(B, (*batch, *B.shape[-2:])),
        left_side=left,
        lower=not upper,
        unit_diagonal=unitriangular,
    )


def cholesky(A: jax.Array, *, upper: bool = False) -> jax.Array:
    """``torch.linalg.cholesky``: one triangle is read; NaN where PyTorch raises."""
    L = lax.linalg.cholesky(_symmetric(A, "U" if upper else "L"), symmetrize_input=False)
    return jnp.conj(L.mT) if upper else L


def qr(A: jax.Array, mode: str = "reduced") -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.qr``.

    Args:
      A: shape ``(..., M, N)``.
      mode: ``"reduced"``, ``"complete"`` or ``"r"``, whose Q is empty.
    """
    if mode == "r":
        return jnp.zeros((0,), A.dtype), jnp.linalg.qr(A, mode="r")
    Q, R = jnp.linalg.qr(A, mode=mode)
    return Q, R


def det(A: jax.Array) -> jax.Array:
    """``torch.linalg.det``."""
    return jnp.linalg.det(A) if A.shape[-1] else jnp.ones(A.shape[:-2], A.dtype)


def logdet(A: jax.Array) -> jax.Array:
    """``torch.logdet``: NaN where the determinant is negative."""
    sign, logabs = slogdet(A)
    return jnp.where(sign == -1, jnp.nan, logabs)


def slogdet(A: jax.Array) -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.slogdet``: the sign, and the logarithm of the magnitude."""
    sign, logabs = jnp.linalg.slogdet(A)
    return sign, logabs


def eigh(A: jax.Array, UPLO: str = "L") -> tuple[jax.Array, jax.Array]:
    """``torch.linalg.eigh``: eigenvalues in order, and eigenvectors; one triangle is read."""
    values, vectors = jnp.linalg.eigh(_symmetric(A, UPLO), symmetrize_input=False)
    return values, vectors


def eigvalsh(A: jax.Array, UPLO: str = "L") -> jax.Array:
    """``torch.linalg.eigvalsh``: the eigenvalues of ``eigh``."""
    return eigh(A, UPLO)[0]


def svd(
    A: jax.Array, full_matrices: bool = True, *, driver: Any = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.linalg.svd``: U, S and the conjugate transpose of V.

    With ``full_matrices`` the vectors beyond the singular values count as constants, as in
    PyTorch. ``driver`` is not read.
    """
    del driver
    full = full_matrices and A.shape[-1] != A.shape[-2]
    U, S, Vh = _svd_full(A) if full else jnp.linalg.svd(A, full_matrices=False)
    return U, S, Vh


@jax.custom_jvp
def _svd_full(A):
    U, S, Vh = jnp.linalg.svd(A, full_matrices=True)
    return U, S, Vh


@_svd_full.defjvp
def _(primals, tangents):
    U, S, Vh = _svd_full(*primals)
    reduced = partial(jnp.linalg.svd, full_matrices=False)
    (U1, _, Vh1), (dU, dS, dVh) = jax.jvp(reduced, primals, tangents)
    k = S.shape[-1]
    phase = jnp.sum(jnp.conj(U1) * U[..., :k], -2)  # the two may differ by
    dU, dVh = dU * phase[..., None, :], jnp.conj(phase)[..., None] * dVh
    beyond_U = jnp.zeros_like(U[..., k:])
    beyond_V = jnp.zeros_like(Vh[..., k:, :])
    del Vh1
    return (U, S, Vh), (
        jnp.concatenate([dU, beyond_U], -1),
        dS,
        jnp.concatenate([dVh, beyond_V], -2),
    )


def svdvals(A: jax.Array, *, driver: Any = None) -> jax.Array:
    """``torch.linalg.svdvals``; ``driver`` is not read."""
    return svd(A, False, driver=driver)[1]


def pinv(
    A: jax.Array, *, atol: Any = None, rtol: Any = None, hermitian: bool = False
) -> jax.Array:
    """``torch.linalg.pinv``: singular values up to ``max(atol, rtol * largest)`` count as 0.

    Args:
      A: shape ``(..., M, N)``.
      atol: a number or an array ``(...)``; None is 0.
      rtol: as well; None is ``max(M, N)`` times the epsilon of the dtype, or 0 with ``atol``.
      hermitian: only the lower triangle is read.
    """
    if A.size == 0:
        return jnp.zeros((*A.shape[:-2], A.shape[-1], A.shape[-2]), A.dtype)
    if rtol is None:
        eps = float(jnp.finfo(A.dtype).eps)
        rtol = max(A.shape[-2:]) * eps
        if atol is not None:
            some = lax.stop_gradient(jnp.asarray(atol)) > 0
            rtol = jnp.where(some, 0.0, rtol)
    real = jnp.finfo(A.dtype).dtype
    at, rt = (
        jnp.asarray(0.0 if tol is None else tol).astype(real)[..., None] for tol in (atol, rtol)
    )
    return _pinv(A, lax.stop_gradient(at), lax.stop_gradient(rt), hermitian)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def _pinv(A, atol, rtol, hermitian):
    A = _symmetric(A, "L") if hermitian else A
    U, S, Vh = jnp.linalg.svd(A, full_matrices=False)
    atol, rtol, S = promote(atol, rtol, S)
    kept = jnp.maximum(atol, rtol * S[..., :1]) < S
    inverse = jnp.where(kept, 1 / jnp.where(kept, S, 1), 0)[..., None, :].astype(A.dtype)
    return (jnp.conj(Vh.mT) * inverse) @ jnp.conj(U.mT)


@_pinv.defjvp
def _(hermitian, primals, tangents):
    """Golub and Pereyra, SIAM Journal on Numerical Analysis 10, 1973."""
    A, dA = primals[0], tangents[0]
    P = _pinv(*primals, hermitian)
    Ph, dAh = jnp.conj(P.mT), jnp.conj(dA.mT)
    X = P @ (Ph @ dAh)
    Y = (dAh @ Ph) @ P
    return P, -P @ dA @ P + X - X @ A @ P + Y - P @ (A @ Y)


@jax.custom_jvp
def _lower_read(A):
    L = jnp.tril(A)
    return L + jnp.conj(jnp.tril(A, -1).mT)


@_lower_read.defjvp
def _(primals, tangents):
    ([A], [dA]) = primals, tangents
    return _lower_read(A), (dA + jnp.conj(dA.mT)) / 2


def _symmetric(A, triangle):
    """The matrix of which one triangle is read; its gradient is that of (A + A^H) / 2."""
    if triangle.upper() == "L":
        return _lower_read(A)
    return _lower_read(jnp.conj(A.mT))

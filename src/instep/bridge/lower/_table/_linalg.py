"""Linear algebra and Fourier transforms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .... import ops


LINALG = """
inv solve solve_triangular cholesky qr det slogdet eigh eigvalsh svd svdvals matrix_norm
matrix_power matrix_exp multi_dot vecdot
lu lu_factor lu_factor_ex lu_solve inv_ex solve_ex cholesky_ex householder_product tensorinv
"""
SAME = """
det slogdet matrix_exp matrix_power cholesky_solve cholesky_inverse triangular_solve lu_unpack
istft
"""


def _svd(A: jax.Array, full: bool, compute_uv: bool, *, driver: Any = None) -> Any:
    if compute_uv:
        return ops.svd(A, full, driver=driver)
    S = ops.svdvals(A)
    return jnp.zeros((0,), A.dtype), S, jnp.zeros((0,), A.dtype)


def _older_svd(A: jax.Array, some: bool, compute_uv: bool) -> Any:
    """V instead of its conjugate transpose; without them, zeros."""
    if compute_uv:
        U, S, Vh = ops.svd(A, not some)
        return U, S, jnp.conj(Vh.mT)
    *batch, m, n = A.shape
    zeros = (jnp.zeros((*batch, k, k), A.dtype) for k in (m, n))
    return next(zeros), ops.svdvals(A), next(zeros)


def _eigh(A: jax.Array, UPLO: str, compute_v: bool) -> Any:
    if compute_v:
        return ops.eigh(A, UPLO)
    return ops.eigvalsh(A, UPLO), jnp.zeros((0,), A.dtype)


def _solve_ex(A: jax.Array, B: jax.Array, *, left: bool, check_errors: bool) -> Any:
    LU, pivots, info = ops.lu_factor_ex(A, check_errors=check_errors)
    return ops.solve(A, B, left=left), lax.stop_gradient(LU), pivots, info


def _stft(input: jax.Array, *args: Any) -> jax.Array:
    """The overload whose signal is padded already."""
    *before, normalized, onesided, return_complex, align_to_window = args
    return _stft_center(
        input,
        *before,
        False,
        "reflect",
        normalized,
        onesided,
        return_complex,
        align_to_window,
    )


def _stft_center(input: jax.Array, *args: Any) -> jax.Array:
    *given, align_to_window = args
    if align_to_window:
        raise NotImplementedError("align_to_window: windows start where the transforms do.")
    return ops.stft(input, *given)


def _older_cholesky(A: jax.Array, upper: bool) -> jax.Array:
    return ops.cholesky(A, upper=upper)


def _older_lu_solve(B: jax.Array, LU: jax.Array, pivots: jax.Array) -> jax.Array:
    return ops.lu_solve(LU, pivots, B)


FFT = "fft ifft rfft irfft hfft ihfft"
SCALED = {True: (None, "ortho", "forward"), False: ("forward", "ortho", None)}  # by its number


def _c2c(input: jax.Array, dim: Sequence[int], normalization: int, forward: bool) -> jax.Array:
    function = jnp.fft.fftn if forward else jnp.fft.ifftn
    return function(input, None, dim, SCALED[forward][normalization]) if dim else input


def _r2c(input: jax.Array, dim: Sequence[int], normalization: int, onesided: bool) -> jax.Array:
    function = jnp.fft.rfftn if onesided else jnp.fft.fftn
    return function(input, None, dim, SCALED[True][normalization])


def _c2r(input: jax.Array, dim: Sequence[int], normalization: int, last: int) -> jax.Array:
    sizes = [*(input.shape[d] for d in dim[:-1]), last]
    return jnp.fft.irfftn(input, sizes, dim, SCALED[False][normalization])


ATEN: dict[str, Callable[..., Any]] = {
    **{f"linalg_{name}": getattr(ops, name) for name in LINALG.split()},
    **{name: getattr(ops, name) for name in SAME.split()},
    **{
        f"fft_{name}{n}": getattr(ops, f"fft_{name}{n}")
        for name in FFT.split()
        for n in ("", "2", "n")
    },
    "fft_fftshift": ops.fft_fftshift,
    "fft_ifftshift": ops.fft_ifftshift,
    "_fft_c2c": _c2c,
    "_fft_r2c": _r2c,
    "_fft_c2r": _c2r,
    "stft": _stft,
    "stft.center": _stft_center,
    "_linalg_svd": _svd,
    "svd": _older_svd,
    "_linalg_eigh": _eigh,
    "_linalg_solve_ex": _solve_ex,
    "cholesky": _older_cholesky,
    "lu_solve": _older_lu_solve,
    "inverse": ops.inv,
    "linalg_matmul": ops.matmul,
    "linalg_norm": ops.linalg_norm,
    "linalg_pinv.atol_rtol_float": ops.pinv,
    "linalg_pinv.atol_rtol_tensor": ops.pinv,
    "linalg_vector_norm": ops.norm,
}

"""Gradient clipping with torch.nn.utils' arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ._dtypes import wide
from ._state import PyTree


def clip_grad_norm(
    grads: PyTree,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> tuple[PyTree, jax.Array]:
    """Scale all gradients so that their joint norm is at most ``max_norm``.

    .. math:: g \\leftarrow g \\cdot \\min\\!\\left(1,
              \\frac{\\text{max\\_norm}}{\\lVert g \\rVert_p + 10^{-6}}\\right), \\qquad
              \\lVert g \\rVert_p = \\bigl\\lVert (\\lVert g_1 \\rVert_p, \\dots,
              \\lVert g_n \\rVert_p) \\bigr\\rVert_p

    PyTorch: ``torch.nn.utils.clip_grad_norm_``. Unlike ``optax.clip_by_global_norm`` it
    adds 1e-6 to the norm and always multiplies, also when the factor is 1.

    Args:
      grads: pytree of floating arrays; None leaves are passed over.
      max_norm: largest norm; ``math.inf`` measures the norm and changes nothing.
      norm_type: the p of the norm: any float, ``inf``, ``-inf`` or 0.
      error_if_nonfinite: raise when the norm is not finite. Needs concrete values.

    Returns:
      ``(grads, total_norm)``: the scaled gradients in their dtypes, and the norm *before*
      clipping, shape (), at least float32. Without leaves the norm is 0.

    Raises:
      RuntimeError: ``error_if_nonfinite`` and the norm is NaN or infinite.
      ValueError: ``error_if_nonfinite`` inside ``jax.jit``, where values are not known.
    """
    leaves = jax.tree.leaves(grads)
    if not leaves:
        return grads, jnp.zeros(())
    norms = jnp.stack([_norm(g.astype(wide(g.dtype)), norm_type) for g in leaves])
    total_norm = _norm(norms, norm_type)
    if error_if_nonfinite:
        _check_finite(total_norm, norm_type)
    factor = jnp.minimum(max_norm / (total_norm + 1e-6), 1.0)
    return jax.tree.map(
        lambda g: (g * factor.astype(wide(g.dtype))).astype(g.dtype), grads
    ), total_norm


def clip_grad_value(grads: PyTree, value: float) -> PyTree:
    """Clamp every gradient element to ``[-value, value]``; NaN stays NaN.

    PyTorch: ``torch.nn.utils.clip_grad_value_``.

    Args:
      grads: pytree of floating arrays; None leaves are passed over.
      value: largest magnitude.
    """
    value = float(value)
    return jax.tree.map(lambda g: jnp.clip(g, -value, value), grads)


def _norm(x: jax.Array, p: float) -> jax.Array:
    """``torch.linalg.vector_norm(x, p)`` over all elements."""
    x = jnp.abs(x)
    if p == jnp.inf:
        return x.max(initial=0.0)
    if p == -jnp.inf:
        return x.min()
    if p == 0:
        return jnp.sum(x != 0).astype(x.dtype)
    if p == 1:
        return jnp.sum(x)
    if p == 2:
        return jnp.sqrt(jnp.sum(x * x))
    return jnp.sum(x**p) ** (1.0 / p)


def _check_finite(total_norm: jax.Array, norm_type: float) -> None:
    if isinstance(total_norm, Tracer):
        raise ValueError(
            "error_if_nonfinite=True needs concrete values and cannot raise inside jax.jit. "
            "Look at metrics.grad_norm after the step instead."
        )
    if not jnp.isfinite(total_norm):
        raise RuntimeError(
            f"the total norm of order {norm_type} is {float(total_norm)}, so it cannot be "
            f"clipped. Find the non-finite gradient, or pass error_if_nonfinite=False to "
            f"scale by the non-finite norm as PyTorch does."
        )

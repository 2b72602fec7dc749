"""Softmax and its logarithm, with PyTorch's derivatives.

They read the probabilities off the result: no second derivative of a confident row cancels.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .._dtypes import wide


def softmax(input: jax.Array, dim: int, dtype: Any = None) -> jax.Array:
    """``torch.softmax``.

    .. math:: p_i = e^{x_i} / \\sum_j e^{x_j}, \\qquad
              dp_i = p_i \\left( dx_i - \\sum_j p_j dx_j \\right)

    Args:
      input: :math:`x`, any shape, floating.
      dim: axis of the sum.
      dtype: of the result, if not that of ``input``.

    Returns:
      The shape of ``input``, computed in at least float32.
    """
    return _in_wide(_softmax, input, dim, dtype)


def safe_softmax(input: jax.Array, dim: int, dtype: Any = None) -> jax.Array:
    """``aten._safe_softmax``: ``softmax``, but 0, not NaN, in a row of minus infinity alone.

    Such are the attention weights of a query that may see no key.

    Args:
      input: any shape, floating.
      dim: axis of the sum.
      dtype: of the result, if not that of ``input``.
    """
    return _in_wide(_safe_softmax, input, dim, dtype)


def log_softmax(input: jax.Array, dim: int, dtype: Any = None) -> jax.Array:
    """``torch.log_softmax``.

    .. math:: y_i = x_i - \\log \\sum_j e^{x_j}, \\qquad dy_i = dx_i - \\sum_j p_j dx_j

    Args:
      input: :math:`x`, any shape, floating.
      dim: axis of the sum.
      dtype: of the result, if not that of ``input``.

    Returns:
      The shape of ``input``, computed in at least float32.
    """
    return _in_wide(_log_softmax, input, dim, dtype)


def _in_wide(function, input, dim, dtype):
    dtype = input.dtype if dtype is None else dtype
    x = input.astype(dtype)
    x = x.astype(wide(x.dtype))
    if x.ndim == 0:
        return function(x[None], 0)[0].astype(dtype)
    return function(x, dim).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(x, dim):
    exp = jnp.exp(_below_largest(x, dim))
    return exp / jnp.sum(exp, dim, keepdims=True)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _safe_softmax(x, dim):
    return jnp.where(jnp.all(x == -jnp.inf, dim, keepdims=True), 0, _softmax(x, dim))


def _defjvp_of_softmax(function):
    @function.defjvp
    def _(dim, primals, tangents):
        ([x], [dx]) = primals, tangents
        p = function(x, dim)
        return p, p * (dx - jnp.sum(p * dx, dim, keepdims=True))


_defjvp_of_softmax(_softmax)
_defjvp_of_softmax(_safe_softmax)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x, dim):
    below = _below_largest(x, dim)
    return below - jnp.log(jnp.sum(jnp.exp(below), dim, keepdims=True))


@_log_softmax.defjvp
def _(dim, primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _log_softmax(x, dim)
    return y, dx - jnp.sum(jnp.exp(y) * dx, dim, keepdims=True)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def log_softmax_at(input: jax.Array, index: jax.Array, dim: int) -> jax.Array:
    """``torch.log_softmax(input, dim)`` gathered at one ``index`` each, and nothing else of it.

    Args:
      input: any shape, floating.
      index: integers in range, the shape of ``input`` without ``dim``.
      dim: axis of the sum and of the index.

    Returns:
      The shape of ``index``.
    """
    below = _below_largest(input, dim)
    return _at(below, index, dim) - jnp.log(jnp.sum(jnp.exp(below), dim))


@log_softmax_at.defjvp
def _(dim, primals, tangents):
    (x, index), (dx, _) = primals, tangents
    p = jnp.exp(log_softmax(x, dim))
    d = _at(dx, index, dim) - jnp.sum(p * dx, dim)
    return log_softmax_at(x, index, dim), d


def _at(x, index, dim):
    return jnp.take_along_axis(x, jnp.expand_dims(index, dim), dim).squeeze(dim)


def _below_largest(x, dim):
    return x - lax.stop_gradient(jnp.max(x, dim, keepdims=True, initial=-jnp.inf))

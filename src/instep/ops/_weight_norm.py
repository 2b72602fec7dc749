"""Weights as a length times a direction."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def weight_norm(v: jax.Array, g: jax.Array, dim: int = 0) -> jax.Array:
    """``torch._weight_norm``, what ``torch.nn.utils.parametrizations.weight_norm`` computes.

    .. math:: w = g \\frac{v}{\\lVert v \\rVert}

    Args:
      v: direction, any shape, floating.
      g: length, the shape of ``v`` with 1 on every axis but ``dim``, in the dtype of ``v``.
      dim: the axis whose slices have a length each; -1: all of ``v`` has one.

    Returns:
      The shape of ``v``. A slice of zeros gives NaN, as in PyTorch.

    References:
      Salimans and Kingma, `Weight Normalization <https://arxiv.org/abs/1602.07868>`_, 2016.
    """
    return v * (g / _norm(v, dim))


def _norm(v: jax.Array, dim: int) -> jax.Array:
    axes = tuple(i for i in range(v.ndim) if dim == -1 or i != dim % v.ndim)
    return jnp.sqrt(jnp.sum(v * v, axes, keepdims=True))

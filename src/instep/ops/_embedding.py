"""Embedding tables: rows by index."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._distance import vector_norm


def embedding(
    input: jax.Array,
    weight: jax.Array,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
) -> jax.Array:
    """``torch.nn.functional.embedding``.

    Args:
      input: integers below ``V``, any shape ``(...)``. An index out of range makes NaN, where
        PyTorch raises.
      weight: the table, shape ``(V, D)``.
      padding_idx: index whose row has no gradient.
      scale_grad_by_freq: divide the gradient of a row by the number of times its index occurs.

    Returns:
      Shape ``(..., D)``.
    """
    rows = _rows(weight, input)
    if scale_grad_by_freq:
        times = jnp.zeros(len(weight), weight.dtype).at[input].add(1)[input]
        rows = _gradient_times(rows, jnp.expand_dims(1 / times, -1))
    if padding_idx is None:
        return rows
    padding = jnp.expand_dims(input == padding_idx % len(weight), -1)
    return jnp.where(padding, jax.lax.stop_gradient(rows), rows)


def embedding_renorm(
    weight: jax.Array, indices: jax.Array, max_norm: float, norm_type: float = 2.0
) -> jax.Array:
    """The table after ``torch.nn.functional.embedding`` with ``max_norm`` shortened its rows.

    .. math:: w_i \\leftarrow w_i \\frac{\\text{max\\_norm}}{\\lVert w_i \\rVert + 10^{-7}}

    for the rows in ``indices`` whose norm is larger. The derivative is that of the table
    itself, as PyTorch overwrites the rows out of sight of its autograd.

    Args:
      weight: the table, shape ``(V, D)``.
      indices: integers below ``V``, any shape.
      max_norm: the largest norm.
      norm_type: exponent of the norm.
    """

    @jax.custom_jvp
    def renormed(weight):
        rows = weight[indices]
        norm = vector_norm(rows, norm_type, dim=-1, keepdim=True)
        scale = jnp.where(norm > max_norm, max_norm / (norm + 1e-7), 1).astype(rows.dtype)
        return weight.at[indices].set(rows * scale)

    @renormed.defjvp
    def _(primals, tangents):
        return renormed(*primals), tangents[0]

    return renormed(weight)


def _rows(weight, indices):
    return weight.at[indices].get(mode="fill", wrap_negative_indices=False)


@jax.custom_jvp
def _gradient_times(x, factor):
    del factor
    return x


@_gradient_times.defjvp
def _(primals, tangents):
    (x, factor), (dx, _) = primals, tangents
    return x, dx * factor

"""Embedding tables: rows by index."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._dtypes import wide
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


def embedding_bag(
    input: jax.Array,
    weight: jax.Array,
    offsets: jax.Array | None = None,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    per_sample_weights: jax.Array | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> jax.Array:
    """``torch.nn.functional.embedding_bag``: the sum, mean or largest of bags of rows.

    Args:
      input: integers below ``V``: shape ``(B, N)``, or ``(N,)`` with ``offsets``.
      weight: the table, shape ``(V, D)``.
      offsets: where each bag starts in ``input``, shape ``(B,)``; the first is 0.
      scale_grad_by_freq: divide the gradients of rows by a number of times that an index
        occurs: for the k-th smallest index, as PyTorch does on the CPU, that of the k-th of
        the sorted ``input``, repetitions counted, which may be a smaller index.
      mode: ``"sum"``, ``"mean"`` or ``"max"``; the largest of equals is the first.
      per_sample_weights: factors of the rows, the shape of ``input``, for a sum only.
      include_last_offset: ``offsets`` ends with the length of ``input``, which starts no bag.
      padding_idx: index whose rows are left out.

    Returns:
      Shape ``(B, D)``; 0 for a bag with nothing in it.

    Raises:
      ValueError: another ``mode``; ``per_sample_weights`` or ``scale_grad_by_freq`` that the
        mode does not have.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError(f"{mode=} must be 'sum', 'mean' or 'max'.")
    if per_sample_weights is not None and mode != "sum":
        raise ValueError(f"{mode=} has no per_sample_weights; they need mode='sum'.")
    if scale_grad_by_freq and mode == "max":
        raise ValueError(f"{mode=} has no scale_grad_by_freq.")
    if offsets is None:
        offsets = jnp.arange(len(input)) * input.shape[1]
        input = input.reshape(-1)
        if per_sample_weights is not None:
            per_sample_weights = per_sample_weights.reshape(-1)
    elif include_last_offset:
        offsets = offsets[:-1]
    bags = len(offsets)
    bag = _bag_of_each(len(input), offsets)
    counts = jnp.ones(len(input), bool)
    if padding_idx is not None:
        counts = input != padding_idx % len(weight)
    if mode == "max":
        return _largest(weight, input, bag, counts, bags)
    rows = _rows(weight, input)
    if scale_grad_by_freq:
        rows = _gradient_times(rows, _inverse_frequency(input, weight))
    if per_sample_weights is not None:
        rows = rows * jnp.expand_dims(per_sample_weights, -1)
    rows = jnp.where(jnp.expand_dims(counts, -1), rows, 0).astype(wide(rows.dtype))
    total = jax.ops.segment_sum(rows, bag, bags)
    if mode == "mean":
        n = jax.ops.segment_sum(counts.astype(rows.dtype), bag, bags)
        total = total / jnp.expand_dims(jnp.maximum(n, 1), -1)
    return total.astype(weight.dtype)


def _inverse_frequency(input, weight):
    times_V = jnp.zeros(len(weight), input.dtype).at[input].add(1)
    rank_V = jnp.cumsum(times_V > 0) - 1
    divisor_V = times_V[jnp.sort(input)[rank_V]]
    return jnp.expand_dims(1 / divisor_V.astype(weight.dtype), -1)[input]


def _bag_of_each(n: int, offsets: jax.Array) -> jax.Array:
    """The number of the bag that each of ``n`` indices is in."""
    place = jnp.arange(n, dtype=offsets.dtype)
    return jnp.searchsorted(offsets, place, side="right").astype(offsets.dtype) - 1


def _largest(weight, input, bag, counts, bags):
    """The rule of ``take_along_axis``: the gradient goes to the first of equals."""
    rows = jax.lax.stop_gradient(_rows(weight, input))
    rows = jnp.where(jnp.expand_dims(counts, -1), rows, -jnp.inf)
    largest = jax.ops.segment_max(rows, bag, bags)
    place = jnp.expand_dims(jnp.arange(len(input)), -1)
    place = jnp.where(rows == largest[bag], place, len(input))
    first = jax.ops.segment_min(place, bag, bags)
    chosen = input.at[first].get(mode="fill", fill_value=len(weight))
    filled = jnp.take_along_axis(weight, chosen, 0, mode="fill")
    n = jax.ops.segment_sum(counts.astype(rows.dtype), bag, bags)
    return jnp.where(jnp.expand_dims(n == 0, -1), 0, filled)


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

"""Quantiles, places in sorted sequences and counts in bins.

Shapes and dtypes: any shape; quantiles and counts are of floating arrays, places of real ones.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._axes import integers, on_axis
from ._sorting import sort


INTERPOLATIONS = ("linear", "lower", "higher", "midpoint", "nearest")


def quantile(
    input: jax.Array,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> jax.Array:
    """``torch.quantile``: NaN where there is a NaN.

    Args:
      input: floating.
      q: a number in [0, 1], or an array of one axis, which becomes the first of the result.
      dim: axis; None: of all elements.
      keepdim: keep the axis, of length 1.
      interpolation: ``"linear"``, ``"lower"``, ``"higher"``, ``"midpoint"`` or ``"nearest"``.

    Raises:
      ValueError: another ``interpolation``.
    """
    return _quantile(input, q, dim, keepdim, interpolation, False)


def nanquantile(
    input: jax.Array,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> jax.Array:
    """``torch.nanquantile``: ``quantile`` of what is not NaN."""
    return _quantile(input, q, dim, keepdim, interpolation, True)


def _quantile(input, q, dim, keepdim, interpolation, skip_nan):
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"{interpolation=} must be one of {INTERPOLATIONS}.")
    x, axis = on_axis(input, dim)
    x = jnp.moveaxis(x, axis, -1)
    values = sort(x)[0]
    n = x.shape[-1]
    q = jnp.asarray(q).astype(x.dtype)
    q_Q1 = q.reshape((-1,) + (1,) * (x.ndim - 1) + (1,))
    nans = jnp.sum(jnp.isnan(lax.stop_gradient(x)), -1, keepdims=True)[None].astype(x.dtype)
    if skip_nan:
        rank = jnp.maximum(q_Q1 * (n - nans - 1), 0)
    else:
        rank = jnp.where(nans > 0, float(n - 1), q_Q1 * (n - 1))
    if interpolation in ("lower", "higher", "nearest"):
        rounded = {"lower": jnp.floor, "higher": jnp.ceil, "nearest": jnp.round}
        rank = rounded[interpolation](rank)
    values = jnp.broadcast_to(values[None], (q.size, *values.shape))
    below = jnp.floor(rank)
    low = jnp.take_along_axis(values, below.astype(integers()), -1)
    made = low
    if interpolation in ("linear", "midpoint"):
        high = jnp.take_along_axis(values, jnp.ceil(rank).astype(integers()), -1)
        share = (rank - below) if interpolation == "linear" else jnp.full_like(rank, 0.5)
        step = high - low
        made = jnp.where(share < 0.5, low + share * step, high - step * (1 - share))
    made = jnp.moveaxis(made, -1, axis + 1) if keepdim else made.squeeze(-1)
    if keepdim and dim is None:
        made = made.reshape(q.size, *(1,) * input.ndim)
    if input.ndim == 0:
        made = made.reshape(q.size)
    return made if q.ndim else made.squeeze(0)


def searchsorted(
    sorted_sequence: jax.Array,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: jax.Array | None = None,
) -> jax.Array:
    """``torch.searchsorted``: where to put ``input`` so that the sequence stays sorted.

    Args:
      sorted_sequence: sorted along its last axis.
      input: a number, or an array with the same axes but the last, or any for one sequence.
      out_int32: indices in int32, else int64.
      right: after equal elements, else before them; as ``side="right"``.
      side: ``"left"``, ``"right"`` or None.
      sorter: indices that sort ``sorted_sequence``.
    """
    if sorter is not None:
        sorted_sequence = jnp.take_along_axis(sorted_sequence, sorter, -1)
    side = "right" if right or side == "right" else "left"
    x = jnp.asarray(input).astype(sorted_sequence.dtype)

    def one(sequence, values):
        return jnp.searchsorted(sequence, values, side=side)

    for _ in range(sorted_sequence.ndim - 1):
        one = jax.vmap(one)
    return one(sorted_sequence, x).astype(jnp.int32 if out_int32 else integers())


def bucketize(
    input: Any, boundaries: jax.Array, *, out_int32: bool = False, right: bool = False
) -> jax.Array:
    """``torch.bucketize``: ``searchsorted`` in one sequence of boundaries."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


def histc(input: jax.Array, bins: int = 100, min: float = 0, max: float = 0) -> jax.Array:
    """``torch.histc``: counts in ``bins`` of equal width, in the dtype of ``input``.

    Args:
      input: floating; what lies outside, and NaN, is not counted.
      bins: how many.
      min, max: the outer bounds; both equal: those of ``input``.
    """
    x = lax.stop_gradient(input).reshape(-1)
    low, high = jnp.asarray(min, x.dtype), jnp.asarray(max, x.dtype)
    if min == max and x.size:
        low, high = jnp.min(x), jnp.max(x)
    same = low == high
    low, high = jnp.where(same, low - 1, low), jnp.where(same, high + 1, high)
    inside = (x >= low) & (x <= high)
    place = (x - low) * bins / (high - low)
    place = jnp.clip(jnp.where(inside, place, 0).astype(integers()), 0, bins - 1)
    return jnp.zeros(bins, x.dtype).at[place].add(inside.astype(x.dtype))

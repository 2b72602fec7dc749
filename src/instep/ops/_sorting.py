"""Sorting, and what a sorted array tells. NaN is greater than all numbers.

Shapes and dtypes: any shape, any dtype but complex; indices are int64, int32 while x64 is off.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._axes import integers, on_axis
from ._extremum import taken


def sort(
    input: jax.Array, dim: int = -1, descending: bool = False, stable: bool | None = True
) -> tuple[jax.Array, jax.Array]:
    """``torch.sort``: stable in either direction, as PyTorch is on CPU even where not asked.

    Args:
      input: any dtype but complex.
      dim: axis.
      descending: from the largest, NaN first.
      stable: not read.

    Returns:
      ``(values, indices)``.
    """
    index = argsort(input, dim, descending, stable)
    x, axis = on_axis(input, dim)
    values = jnp.take_along_axis(x, index.reshape(x.shape), axis)
    return values.reshape(input.shape), index


def argsort(
    input: jax.Array, dim: int = -1, descending: bool = False, stable: bool | None = True
) -> jax.Array:
    """``torch.argsort``: the indices of ``sort``."""
    del stable
    x, axis = on_axis(lax.stop_gradient(input), dim)
    index = lax.broadcasted_iota(integers(), x.shape, axis)
    if descending:  # flipped twice, so that ties keep their order
        x, index = jnp.flip(x, axis), jnp.flip(index, axis)
    _, index = lax.sort((x, index), dimension=axis, is_stable=True, num_keys=1)
    return (jnp.flip(index, axis) if descending else index).reshape(input.shape)


def msort(input: jax.Array) -> jax.Array:
    """``torch.msort``: sorted along the first axis."""
    return sort(input, 0)[0]


def topk(
    input: jax.Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[jax.Array, jax.Array]:
    """``torch.topk``: among ties the first, where PyTorch's choice is arbitrary.

    Args:
      input: any dtype but complex.
      k: how many.
      dim: axis.
      largest: else the smallest.
      sorted: not read; they are.

    Returns:
      ``(values, indices)``, from the most extreme.
    """
    del sorted
    if input.ndim == 0:
        values, index = sort(input)
        return values[:k] if values.ndim else values, index
    axis = dim % input.ndim
    if largest and jnp.issubdtype(input.dtype, jnp.floating):
        x = jnp.moveaxis(lax.stop_gradient(input), axis, -1)
        x = jnp.where(x == 0, 0, jnp.where(jnp.isnan(x), jnp.nan, x))  # one zero, one NaN
        index = jnp.moveaxis(lax.top_k(x, k)[1].astype(integers()), -1, axis)
    else:
        index = lax.slice_in_dim(argsort(input, axis, largest), 0, k, axis=axis)
    return jnp.take_along_axis(input, index, axis), index


def kthvalue(
    input: jax.Array, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.kthvalue``: the ``k``-th smallest, from 1; among ties as ``sort`` has them."""
    x, axis = on_axis(argsort(input, dim), dim)
    index = lax.slice_in_dim(x, k - 1, k, axis=axis)
    return _chosen(input, index, dim, keepdim)


def median(input: jax.Array, dim: int | None = None, keepdim: bool = False):
    """``torch.median``: the lower of two in the middle; NaN if there is one.

    Args:
      input: any dtype but complex.
      dim: axis; None: of all elements, whose ties share the gradient.
      keepdim: keep the axis, of length 1.

    Returns:
      An array; for an axis, ``(values, indices)``.
    """
    return _median(input, dim, keepdim, False)


def nanmedian(input: jax.Array, dim: int | None = None, keepdim: bool = False):
    """``torch.nanmedian``: ``median`` of what is not NaN; NaN if there is nothing."""
    return _median(input, dim, keepdim, True)


def mode(input: jax.Array, dim: int = -1, keepdim: bool = False) -> tuple[jax.Array, jax.Array]:
    """``torch.mode``: the smallest of the most frequent, and its last index."""
    values, order = sort(input, dim)
    x, axis = on_axis(lax.stop_gradient(values), dim)
    order = order.reshape(x.shape)
    n = x.shape[axis]
    same = lax.slice_in_dim(x, 1, n, axis=axis) == lax.slice_in_dim(x, 0, n - 1, axis=axis)
    new = ~jnp.pad(same, [(1, 0) if i == axis else (0, 0) for i in range(x.ndim)])
    place = lax.broadcasted_iota(integers(), x.shape, axis)
    start = lax.cummax(jnp.where(new, place, 0), axis)
    best = jnp.argmax(place - start, axis, keepdims=True)
    return _chosen(input, jnp.take_along_axis(order, best, axis), dim, keepdim)


def _median(input, dim, keepdim, skip_nan):
    x, axis = on_axis(input, dim)
    order = argsort(x, axis)
    n = x.shape[axis]
    nans = jnp.sum(x != x, axis, keepdims=True, dtype=integers())
    middle = (n - 1 - nans) // 2 if skip_nan else jnp.where(nans > 0, n - nans, (n - 1) // 2)
    index = jnp.take_along_axis(order, jnp.maximum(middle, 0), axis)
    if dim is None:
        return _shared(x, index)
    return _chosen(input, index, dim, keepdim)


@jax.custom_jvp
def _shared(x, index):
    return x[index[0]]


@_shared.defjvp
def _(primals, tangents):
    (x, index), (dx, _) = primals, tangents
    y = _shared(x, index)
    ties = (x == y) | ((x != x) & (y != y))
    return y, jnp.sum(jnp.where(ties, dx, 0)) / jnp.sum(ties).astype(x.dtype)


def _chosen(input, index, dim, keepdim):
    """The elements at an index that keeps its axis."""
    if input.ndim == 0:
        index = index.reshape(())
        return input, index
    values = taken(input, index, dim, keepdim)
    return values, index.reshape(values.shape)

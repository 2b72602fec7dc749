"""Views of tensors; here each is a new array. Strides are those of a row-major array.

Shapes and dtypes: any shape and dtype; the dtype stays.

Raises:
  IndexError: there is no axis of that number.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ._elementwise import computing


def axis_of(dim: int, ndim: int) -> int:
    """``dim``, which may be negative, as an axis; a tensor without axes has one to name.

    Raises:
      IndexError: there is no such axis.
    """
    axes = max(ndim, 1)
    if not -axes <= dim < axes:
        raise IndexError(
            f"dim is {dim}; there are {ndim} axes, so it is {-axes} to {axes - 1}."
        )
    return dim % axes


def flatten(input: jax.Array, start_dim: int = 0, end_dim: int = -1) -> jax.Array:
    """``torch.flatten``: the axes from ``start_dim`` to ``end_dim`` as one."""
    shape = jnp.shape(input) or (1,)
    start, end = axis_of(start_dim, len(shape)), axis_of(end_dim, len(shape))
    middle = math.prod(shape[start : end + 1])
    return jnp.reshape(input, (*shape[:start], middle, *shape[end + 1 :]))


def unflatten(input: jax.Array, dim: int, sizes: Sequence[int]) -> jax.Array:
    """``torch.unflatten``: one axis as several; one of ``sizes`` may be -1."""
    axis = axis_of(dim, input.ndim)
    rest = math.prod(n for n in sizes if n != -1)
    sizes = [input.shape[axis] // max(rest, 1) if n == -1 else n for n in sizes]
    return jnp.reshape(input, (*input.shape[:axis], *sizes, *input.shape[axis + 1 :]))


def squeeze(input: jax.Array, dim: int | Sequence[int] | None = None) -> jax.Array:
    """``torch.squeeze``: without the named axes that have length 1, others are kept."""
    dims = range(input.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = [axis_of(d, input.ndim) for d in dims]
    return jnp.squeeze(input, tuple(a for a in axes if input.ndim and input.shape[a] == 1))


def movedim(
    input: jax.Array, source: int | Sequence[int], destination: int | Sequence[int]
) -> jax.Array:
    """``torch.movedim``."""
    return jnp.moveaxis(input, source, destination) if input.ndim else input


def transpose(input: jax.Array, dim0: int, dim1: int) -> jax.Array:
    """``torch.transpose``."""
    if not input.ndim:
        return input
    return jnp.swapaxes(input, axis_of(dim0, input.ndim), axis_of(dim1, input.ndim))


def expand(input: jax.Array, size: Sequence[int]) -> jax.Array:
    """``Tensor.expand``: axes of length 1 repeated to ``size``, where -1 keeps a length."""
    new = len(size) - input.ndim
    kept = (1,) * new + input.shape
    size = [k if n == -1 else n for k, n in zip(kept, size, strict=True)]
    # The gradient is a sum, which in half precision XLA would round in every part.
    wider = jnp.reshape(input, kept).astype(computing(input.dtype))
    return jnp.broadcast_to(wider, size).astype(input.dtype)


def repeat(input: jax.Array, repeats: Sequence[int]) -> jax.Array:
    """``Tensor.repeat``: copies one after another along each axis; new axes come first."""
    return jnp.tile(input, repeats)


def select(input: jax.Array, dim: int, index: int) -> jax.Array:
    """``torch.select``: one ``index`` of an axis, which is dropped."""
    return lax.index_in_dim(input, index, axis_of(dim, input.ndim), keepdims=False)


def slice(
    input: jax.Array,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> jax.Array:
    """``aten.slice``: ``input[start:end:step]`` of axis ``dim``, bounds as in Python."""
    axis = axis_of(dim, input.ndim)
    n = input.shape[axis]
    start, end, _ = builtins.slice(start, end, step).indices(n)
    return lax.slice_in_dim(input, start, max(start, end), step, axis)


def narrow(input: jax.Array, dim: int, start: int, length: int) -> jax.Array:
    """``torch.narrow``: ``length`` of an axis, from ``start`` on, which may be negative."""
    axis = axis_of(dim, input.ndim)
    start = start + input.shape[axis] if start < 0 else start
    return lax.slice_in_dim(input, start, start + length, 1, axis)


def diagonal(input: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> jax.Array:
    """``torch.diagonal``: the diagonals of two axes, on the last one."""
    return jnp.diagonal(input, offset, dim1, dim2)


def diag_embed(input: jax.Array, offset: int = 0, dim1: int = -2, dim2: int = -1) -> jax.Array:
    """``torch.diag_embed``: the last axis as the diagonal of two new axes, zeros elsewhere."""
    n = input.shape[-1] + abs(offset)
    row, column = _row_column(n, n)
    zero = jnp.zeros((), input.dtype)
    before = [(0, 0, 0)] * (input.ndim - 1)
    padded = lax.pad(input, zero, [*before, (max(-offset, 0), max(offset, 0), 0)])
    matrix = jnp.broadcast_to(padded[..., None], (*padded.shape, n))
    on = jnp.broadcast_to(column - row == offset, matrix.shape)
    return jnp.moveaxis(jnp.where(on, matrix, zero), (-2, -1), (dim1, dim2))


def tril(input: jax.Array, diagonal: int = 0) -> jax.Array:
    """``torch.tril``: 0 above the ``diagonal``, also in place of NaN."""
    row, column = _row_column(*input.shape[-2:])
    kept = jnp.broadcast_to(column - row <= diagonal, input.shape)
    return jnp.where(kept, input, jnp.zeros((), input.dtype))


def triu(input: jax.Array, diagonal: int = 0) -> jax.Array:
    """``torch.triu``: 0 below the ``diagonal``, also in place of NaN."""
    row, column = _row_column(*input.shape[-2:])
    kept = jnp.broadcast_to(column - row >= diagonal, input.shape)
    return jnp.where(kept, input, jnp.zeros((), input.dtype))


def tensor_unfold(input: jax.Array, dimension: int, size: int, step: int) -> jax.Array:
    """``Tensor.unfold``: windows of ``size`` along an axis, each on a new last axis.

    ``torch.nn.functional.unfold``, windows of images, is another function.
    """
    if not input.ndim:
        return jnp.reshape(input, (1,))[:size]
    axis = axis_of(dimension, input.ndim)
    count = (input.shape[axis] - size) // step + 1
    if step == size:
        blocks = lax.slice_in_dim(input, 0, count * size, axis=axis)
        return jnp.moveaxis(unflatten(blocks, axis, (count, size)), axis + 1, -1)
    first, within = jnp.arange(count) * step, jnp.arange(size)
    windows = jnp.take(input, first[:, None] + within[None, :], axis, mode="clip")
    return jnp.moveaxis(windows, axis + 1, -1)


def as_strided(
    input: jax.Array, size: Sequence[int], stride: Sequence[int], storage_offset: int = 0
) -> jax.Array:
    """``torch.as_strided`` of a tensor whose own strides are row-major, without an offset.

    Element ``(i, j, ...)`` is that of index ``storage_offset + i * stride[0] + ...`` in the
    flat input; the gradient of an element that is there more than once is a sum.
    """
    place = _places(size, stride, storage_offset)
    return jnp.reshape(input, -1).at[place].get(mode="fill")


def _places(size, stride, offset):
    places = jnp.full(tuple(size), offset or 0)
    for axis, step in enumerate(stride):
        places = places + step * lax.broadcasted_iota(places.dtype, tuple(size), axis)
    return places


def _row_column(n, m):
    """Of every element of a matrix, as arrays that ``broadcast_to`` extends."""
    return tuple(lax.broadcasted_iota(jnp.int32, (n, m), axis) for axis in (0, 1))

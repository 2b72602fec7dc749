"""Tensors joined into one, and one split into several.

Shapes and dtypes: any shape and dtype; tensors that become one are promoted to one dtype.

Raises:
  IndexError: there is no axis of that number.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._promotion import result_type
from ._view import axis_of, squeeze


def cat(tensors: Sequence[jax.Array], dim: int = 0) -> jax.Array:
    """``torch.cat``: one after another along ``dim``, in the dtype they promote to.

    A tensor of shape ``(0,)`` adds nothing, whatever the shape of the others.
    """
    arrays = _alike(tensors)
    ndim = max(x.ndim for x in arrays)
    joined = [x for x in arrays if x.shape != (0,)] or arrays[:1]
    return jnp.concatenate(joined, axis_of(dim, ndim if joined[0].shape != (0,) else 1))


def stack(tensors: Sequence[jax.Array], dim: int = 0) -> jax.Array:
    """``torch.stack``: along a new axis, in the dtype they promote to."""
    arrays = _alike(tensors)
    return jnp.stack(arrays, axis_of(dim, arrays[0].ndim + 1))


def block_diag(tensors: Sequence[jax.Array]) -> jax.Array:
    """``torch.block_diag``: matrices one below the other on a diagonal, zeros elsewhere."""
    blocks = [jnp.reshape(x, (1,) * (2 - x.ndim) + x.shape) for x in _alike(tensors)]
    zero, width = jnp.zeros((), blocks[0].dtype), sum(x.shape[1] for x in blocks)
    ends = np.cumsum([x.shape[1] for x in blocks])
    rows = [
        lax.pad(x, zero, [(0, 0, 0), (int(end) - x.shape[1], width - int(end), 0)])
        for x, end in zip(blocks, ends, strict=True)
    ]
    return jnp.concatenate(rows)


def meshgrid(tensors: Sequence[jax.Array], indexing: str = "ij") -> list[jax.Array]:
    """``torch.meshgrid``: vectors, each along an axis of its own, expanded to all axes."""
    vectors = [jnp.reshape(x, -1) for x in tensors]
    return list(jnp.meshgrid(*vectors, indexing=indexing))


def cartesian_prod(tensors: Sequence[jax.Array]) -> jax.Array:
    """``torch.cartesian_prod``: every choice of one element of each vector, as rows."""
    columns = [jnp.reshape(x, -1) for x in meshgrid(tensors)]
    return columns[0] if len(columns) == 1 else stack(columns, 1)


def combinations(input: jax.Array, r: int = 2, with_replacement: bool = False) -> jax.Array:
    """``torch.combinations``: every choice of ``r`` elements of a vector, as rows."""
    choose = itertools.combinations
    if with_replacement:
        choose = itertools.combinations_with_replacement
    chosen = np.array(list(choose(range(input.shape[0]), r)), np.int32).reshape(-1, r)
    return jnp.take(input, chosen, axis=0, mode="clip")


def repeat_interleave(
    input: jax.Array,
    repeats: int | np.ndarray,
    dim: int | None = None,
    *,
    output_size: int | None = None,
) -> jax.Array:
    """``torch.repeat_interleave``: every element of an axis several times in a row.

    Args:
      input: any; flat if ``dim`` is None.
      repeats: how often: one number, or one for each element.
      dim: the axis.
      output_size: the sum of ``repeats``; needed where they are not known in advance.

    Raises:
      NotImplementedError: ``repeats`` is computed and there is no ``output_size``.
    """
    x, axis = (jnp.reshape(input, -1), 0) if dim is None else (input, axis_of(dim, input.ndim))
    if not isinstance(repeats, int | np.ndarray) and output_size is None:
        raise NotImplementedError(
            "repeats is computed by the program: the shape would depend on the data. "
            "Give output_size."
        )
    return jnp.repeat(x, repeats, axis, total_repeat_length=output_size)


def split(input: jax.Array, split_size: int | Sequence[int], dim: int = 0) -> list[jax.Array]:
    """``torch.split``: pieces of one size, the last one smaller, or pieces of given sizes."""
    axis = axis_of(dim, input.ndim)
    n = input.shape[axis]
    if not isinstance(split_size, int):
        return _between(input, axis, [0, *itertools.accumulate(split_size)])
    starts = list(range(0, n, split_size)) if split_size and n else [0]
    return _between(input, axis, [*starts, n])


def chunk(input: jax.Array, chunks: int, dim: int = 0) -> list[jax.Array]:
    """``torch.chunk``: at most ``chunks`` pieces of one size, the last one smaller."""
    n = input.shape[axis_of(dim, input.ndim)]
    size = -(-n // chunks)
    if size == 0:
        return split(input, [0] * chunks, dim)
    return split(input, size, dim)


def tensor_split(
    input: jax.Array, indices_or_sections: int | Sequence[int], dim: int = 0
) -> list[jax.Array]:
    """``torch.tensor_split``: ``indices_or_sections``, cuts or a number of even sections."""
    axis = axis_of(dim, input.ndim)
    n = input.shape[axis]
    if not isinstance(indices_or_sections, int):
        cuts = [slice(i, None).indices(n)[0] for i in indices_or_sections]
        return _between(input, axis, [0, *cuts, n])
    sections = indices_or_sections
    small, larger = divmod(n, sections)
    return split(input, [small + (i < larger) for i in range(sections)], dim)


def unbind(input: jax.Array, dim: int = 0) -> list[jax.Array]:
    """``torch.unbind``: every slice of an axis, without it."""
    axis = axis_of(dim, input.ndim)
    ones = split(input, 1, axis) if input.shape[axis] else []
    return [squeeze(x, axis) for x in ones]


def _between(input: jax.Array, axis: int, cuts: Sequence[int]) -> list[jax.Array]:
    return [
        lax.slice_in_dim(input, start, max(start, end), axis=axis)
        for start, end in itertools.pairwise(cuts)
    ]


def _alike(tensors: Sequence[Any]) -> list[jax.Array]:
    dtype = result_type(*tensors)
    return [jnp.asarray(x).astype(dtype) for x in tensors]

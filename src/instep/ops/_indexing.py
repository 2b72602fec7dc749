"""Reading and writing by index.

A negative index counts from the end. For one out of range, where PyTorch raises, a read gives
NaN (in integers: the smallest one) and a write does nothing.

Shapes and dtypes: ``input`` has any shape and dtype, which stays; indices are integers of any
shape, masks bool.

Raises:
  IndexError: there is no axis of that number.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._promotion import promote, result_type
from ._view import axis_of


Index = Sequence[Any]  # for each axis an array of integers or booleans, or None: all of it


def index(input: jax.Array, indices: Index) -> jax.Array:
    """``aten.index``: ``input[indices]``, of an integer tensor, constant mask or None each.

    The indices are broadcast together. Their axes stand in place of the axes that they index,
    or first, if there are others between those. Gradients of an element add up.

    Args:
      input: any dtype.
      indices: one for each axis, as far as they go. A mask stands for as many as it has.

    Raises:
      NotImplementedError: a mask that the program computes: the shape depends on the data.
    """
    arrays, whole = spread(indices)
    return jnp.asarray(input).at[place(arrays, whole)].get(mode="fill")


def index_put(
    input: jax.Array, indices: Index, values: jax.Array, accumulate: bool = False
) -> jax.Array:
    """``torch.index_put``: ``input[indices] = values``, or ``+=`` with ``accumulate``.

    Of several values for one element the last counts, and the gradient goes to all of them.

    Args:
      input: any dtype.
      indices: as in ``index``; also one mask that the program computes, all others None.
      values: of the dtype of ``input``, broadcast to the shape of ``input[indices]``.
      accumulate: add, also more than once.

    Raises:
      NotImplementedError: a computed mask, and values that differ along it.
    """
    if any(map(_is_computed_mask, indices)):
        return _masked_put(input, indices, values, accumulate)
    arrays, whole = spread(indices)
    if accumulate:
        return jnp.asarray(input).at[place(arrays, whole)].add(values)
    return put_at(input, values, arrays, whole)


def index_select(input: jax.Array, dim: int, index: jax.Array) -> jax.Array:
    """``torch.index_select``: slices of an axis by a vector of indices."""
    x = jnp.atleast_1d(input)
    taken = jnp.take(x, jnp.atleast_1d(index), axis_of(dim, input.ndim), mode="fill")
    return taken if input.ndim else taken[0]


def gather(input: jax.Array, dim: int, index: jax.Array) -> jax.Array:
    """``torch.gather``: one element of ``dim`` for each element of ``index``.

    Args:
      input: any dtype.
      dim: the axis.
      index: integers; no longer than ``input`` on the other axes.

    Returns:
      The shape of ``index``.
    """
    if not index.size:
        return jnp.zeros(index.shape, input.dtype)
    x, at = jnp.atleast_1d(input), jnp.atleast_1d(index)
    axis = axis_of(dim, x.ndim)
    x = x[tuple(slice(n if i != axis else None) for i, n in enumerate(at.shape))]
    taken = jnp.take_along_axis(x, at, axis, mode="fill")
    return jnp.reshape(taken, index.shape)


def take(input: jax.Array, index: jax.Array) -> jax.Array:
    """``torch.take``: elements of the flat input."""
    return jnp.reshape(input, -1).at[jnp.asarray(index)].get(mode="fill")


def take_along_dim(input: jax.Array, indices: jax.Array, dim: int | None = None) -> jax.Array:
    """``torch.take_along_dim``: ``gather``, the other axes broadcast; flat without ``dim``."""
    if dim is None:
        return gather(jnp.reshape(input, -1), 0, jnp.reshape(indices, -1))
    axis = axis_of(dim, input.ndim)
    return jnp.take_along_axis(jnp.asarray(input), jnp.asarray(indices), axis, mode="fill")


def put(
    input: jax.Array, index: jax.Array, source: jax.Array, accumulate: bool = False
) -> jax.Array:
    """``torch.put``: elements of the flat input replaced, or added to."""
    source = jnp.reshape(source, index.shape)
    flat = index_put(jnp.reshape(input, -1), [index], source, accumulate)
    return jnp.reshape(flat, input.shape)


def masked_scatter(input: jax.Array, mask: jax.Array, source: jax.Array) -> jax.Array:
    """``torch.masked_scatter``: the elements of ``source``, in order, where ``mask`` is true.

    Where ``source`` has too few, PyTorch raises; here the rest is NaN.
    """
    shape = jnp.broadcast_shapes(input.shape, mask.shape)
    x, on = jnp.broadcast_to(input, shape), jnp.broadcast_to(mask, shape)
    if not source.size:
        return x
    number = jnp.cumsum(jnp.reshape(on, -1)) - 1
    values = jnp.reshape(take(source, jnp.maximum(number, 0)), shape)
    return jnp.where(on, values, x)


def nonzero_static(input: jax.Array, *, size: int, fill_value: int = -1) -> jax.Array:
    """``torch.nonzero_static``: indices of the first ``size`` elements that are not 0."""
    if not input.size or not input.ndim:
        return jnp.full((size, input.ndim), fill_value, result_type(0))
    found = jnp.nonzero(input, size=size, fill_value=fill_value)
    return jnp.stack(found, 1).astype(result_type(0))


def isin(elements: Any, test_elements: Any, *, invert: bool = False) -> jax.Array:
    """``torch.isin``: whether each element is one of ``test_elements``."""
    x, tests = promote(elements, test_elements)
    return jnp.isin(jnp.reshape(x, np.shape(elements)), tests, invert=invert)


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def put_at(input: jax.Array, values: jax.Array, arrays: Any, whole: tuple[bool, ...]):
    """``input[place(arrays, whole)] = values``, with gradients to all values of one element."""
    return jnp.asarray(input).at[place(arrays, whole)].set(values)


@put_at.defjvp
def _(whole, primals, tangents):
    (x, values, arrays), (dx, dvalues, _) = primals, tangents
    d = kept(dx, arrays, whole).at[place(arrays, whole)].add(dvalues)
    return put_at(x, values, arrays, whole), d


def kept(input: jax.Array, arrays: Any, whole: tuple[bool, ...]) -> jax.Array:
    """``input``, and 0 at ``place(arrays, whole)``."""
    is_kept = jnp.ones(input.shape, bool).at[place(arrays, whole)].set(False)
    return jnp.where(is_kept, input, jnp.zeros((), input.dtype))


def place(arrays: Any, whole: tuple[bool, ...]) -> tuple[Any, ...]:
    """An index of ``jax.numpy``: the next array, or all of an axis that is ``whole``."""
    arrays = iter(arrays)
    return tuple(slice(None) if all_of_it else next(arrays) for all_of_it in whole)


def spread(indices: Index) -> tuple[tuple[jax.Array, ...], tuple[bool, ...]]:
    """Index arrays of one shape, masks as the places where they are true; and which is None.

    Raises:
      NotImplementedError: see ``index``.
    """
    if any(map(_is_computed_mask, indices)):
        raise NotImplementedError(
            "indexing with a mask that the program computes: the shape would depend on the "
            "data. Use torch.where, or a mask that is constant."
        )
    given: list[Any] = []
    for i in indices:
        given.extend(np.nonzero(i) if i is not None and _is_mask(i) else [i])
    arrays = [jnp.asarray(i) for i in given if i is not None]
    return tuple(jnp.broadcast_arrays(*arrays)), tuple(i is None for i in given)


def _masked_put(input, indices, values, accumulate):
    """``values`` may be laid along the mask only if they are one for all of it."""
    before = next(n for n, i in enumerate(indices) if i is not None)
    mask = indices[before]
    after = input.ndim - before - mask.ndim
    along = values.ndim - after - 1  # the axis of values along the mask
    others = sum(i is not None for i in indices) > 1
    if others or (along >= 0 and values.shape[along] != 1):
        raise NotImplementedError(
            f"index_put of values of shape {values.shape} with a mask that the program "
            f"computes: one value for all of the mask is supported. Use torch.where."
        )
    if along >= 0:
        shape = values.shape
        values = values.reshape(*shape[:along], *(1,) * mask.ndim, *shape[along + 1 :])
    on = jnp.expand_dims(mask.astype(bool), tuple(range(mask.ndim, mask.ndim + after)))
    on, values = (jnp.broadcast_to(x, input.shape) for x in (on, values))
    return jnp.where(on, input + values if accumulate else values, input)


def _is_mask(i: Any) -> bool:
    return i.dtype in (np.bool_, np.uint8)


def _is_computed_mask(i: Any) -> bool:
    return i is not None and _is_mask(i) and not isinstance(i, np.ndarray)

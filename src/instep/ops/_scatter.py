"""Writing along an axis. An index out of range, where PyTorch raises, writes nothing.

Shapes and dtypes: ``input`` has any shape and dtype; values have its dtype or are cast to it.
An index is an array of integers, a vector where it names slices.

Raises:
  IndexError: there is no axis of that number.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._cast import cast
from ._indexing import kept, place, put_at
from ._view import axis_of


def scatter(input: jax.Array, dim: int, index: jax.Array, src: Any) -> jax.Array:
    """``torch.scatter``: elements of ``dim`` replaced, the reverse of ``gather``.

    Of several values for one element the last counts, and the gradient goes to all of them.

    Args:
      input: any dtype.
      dim: the axis.
      index: integers, no longer than ``src`` on any axis, nor than ``input`` on the others.
      src: of the dtype of ``input``, or a number.
    """
    return _scattered(put_at, input, dim, index, src)


def scatter_add(input: jax.Array, dim: int, index: jax.Array, src: jax.Array) -> jax.Array:
    """``torch.scatter_add``: as ``scatter``, with all values for an element added to it."""
    return _scattered(_add_at, input, dim, index, src)


def scatter_reduce(
    input: jax.Array,
    dim: int,
    index: jax.Array,
    src: Any,
    reduce: str,
    *,
    include_self: bool = True,
) -> jax.Array:
    """``torch.scatter_reduce``: all values for an element reduced to one.

    Args:
      input, dim, index, src: as in ``scatter``.
      reduce: "sum", "prod", "mean", "amax" or "amin". The gradient of the last two is shared
        evenly by ties.
      include_self: the element itself counts.

    Raises:
      NotImplementedError: another ``reduce``.
    """
    return _scattered(_reduction(reduce, include_self), input, dim, index, src)


def index_add(
    input: jax.Array, dim: int, index: jax.Array, source: jax.Array, *, alpha: Any = 1
) -> jax.Array:
    """``torch.index_add``: slices of ``alpha * source`` added to those that ``index`` names."""
    if alpha != 1:
        source = source * jnp.asarray(alpha).astype(source.dtype)
    return _at_slices(_add_at, input, dim, index, source)


def index_copy(input: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    """``torch.index_copy``: the slices that ``index`` names replaced."""
    return _at_slices(put_at, input, dim, index, source)


def index_fill(input: jax.Array, dim: int, index: jax.Array, value: Any) -> jax.Array:
    """``torch.index_fill``: the slices that ``index`` names filled with one value."""
    axis = axis_of(dim, input.ndim)
    x = jnp.atleast_1d(input)
    filled = jnp.zeros(x.shape[axis], bool).at[index].set(True)
    filled = jnp.expand_dims(filled, [i for i in range(x.ndim) if i != axis])
    y = jnp.where(jnp.broadcast_to(filled, x.shape), cast(value, x.dtype), x)
    return jnp.reshape(y, input.shape)


def index_reduce(
    input: jax.Array,
    dim: int,
    index: jax.Array,
    source: jax.Array,
    reduce: str,
    *,
    include_self: bool = True,
) -> jax.Array:
    """``torch.index_reduce``: as ``scatter_reduce``, by slices."""
    return _at_slices(_reduction(reduce, include_self), input, dim, index, source)


def slice_scatter(
    input: jax.Array,
    src: jax.Array,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> jax.Array:
    """``torch.slice_scatter``: ``src`` in place of ``input[start:end:step]`` of one axis."""
    axis = axis_of(dim, input.ndim)
    n = input.shape[axis]
    first, last, _ = slice(start, end, step).indices(n)
    src = jnp.asarray(src).astype(input.dtype)
    if step == 1:
        return lax.dynamic_update_slice_in_dim(input, src, first, axis)
    if first >= last:
        return jnp.asarray(input)
    i = lax.broadcasted_iota(jnp.int32, input.shape, axis)
    written = (i >= first) & (i < last) & ((i - first) % step == 0)
    spread = [(0, 0, 0)] * input.ndim
    spread[axis] = (first, n - first - (src.shape[axis] - 1) * step - 1, step - 1)
    return jnp.where(written, lax.pad(src, jnp.zeros((), src.dtype), spread), input)


def select_scatter(input: jax.Array, src: jax.Array, dim: int, index: int) -> jax.Array:
    """``torch.select_scatter``: ``src`` in place of one ``index`` of an axis."""
    axis = axis_of(dim, input.ndim)
    src = jnp.expand_dims(src.astype(input.dtype), axis)
    start = index + input.shape[axis] if index < 0 else index
    return lax.dynamic_update_slice_in_dim(input, src, start, axis)


def diagonal_scatter(
    input: jax.Array, src: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> jax.Array:
    """``torch.diagonal_scatter``: ``src`` in place of the diagonals of two axes."""
    x = jnp.moveaxis(input, (dim1, dim2), (-2, -1))
    i = jnp.arange(src.shape[-1])
    at = (..., i + max(-offset, 0), i + max(offset, 0))
    y = x.at[at].set(jnp.asarray(src).astype(x.dtype), unique_indices=True)
    return jnp.moveaxis(y, (-2, -1), (dim1, dim2))


def _scattered(write, input, dim, index, src):
    """``write`` at the places of ``scatter``."""
    if not index.size:
        return jnp.asarray(input)
    x, at = jnp.atleast_1d(input), jnp.atleast_1d(index)
    axis = axis_of(dim, x.ndim)
    src = jnp.asarray(src).astype(x.dtype)
    if src.ndim == at.ndim:
        src = src[tuple(map(slice, at.shape))]
    values = jnp.broadcast_to(src, at.shape)
    arrays = tuple(
        at if i == axis else lax.broadcasted_iota(at.dtype, at.shape, i) for i in range(x.ndim)
    )
    return jnp.reshape(write(x, values, arrays, (False,) * x.ndim), input.shape)


def _at_slices(write, input, dim, index, source):
    """``write`` at slices of an axis."""
    x, at = jnp.atleast_1d(input), jnp.atleast_1d(index)
    axis = axis_of(dim, x.ndim)
    slices = (*x.shape[:axis], at.shape[0], *x.shape[axis + 1 :])
    source = jnp.reshape(source, slices).astype(x.dtype)
    whole = (True,) * axis + (False,)
    return jnp.reshape(write(x, source, (at,), whole), input.shape)


def _add_at(x, values, arrays, whole):
    return x.at[place(arrays, whole)].add(values)


def _reduction(reduce, include_self):
    """The function that writes a reduction, with the arguments of ``put_at``."""
    if reduce in ("sum", "mean"):
        return partial(_sum_at, include_self=include_self, mean=reduce == "mean")
    if reduce in ("prod", "amax", "amin"):
        rule = _prod_at if reduce == "prod" else _extreme_at
        return lambda *args: rule(*args, include_self, reduce)
    raise NotImplementedError(
        f"reduce is {reduce!r}; it is 'sum', 'prod', 'mean', 'amax' or 'amin'."
    )


def _sum_at(x, values, arrays, whole, *, include_self, mean):
    start = x if include_self else kept(x, arrays, whole)
    total = _add_at(start, values, arrays, whole)
    if not mean:
        return total
    count = jnp.full(x.shape, int(include_self), x.dtype)
    count = jnp.maximum(_add_at(count, jnp.ones_like(values), arrays, whole), 1)
    return total / count if jnp.issubdtype(x.dtype, jnp.inexact) else total // count


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _extreme_at(x, values, arrays, whole, include_self, reduce):
    at = place(arrays, whole)
    if not include_self:
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        limits = jnp.finfo(x.dtype) if floating else jnp.iinfo(x.dtype)
        worst = {"amax": limits.min, "amin": limits.max}[reduce]
        if floating:
            worst = {"amax": -jnp.inf, "amin": jnp.inf}[reduce]
        x = x.at[at].set(jnp.asarray(worst, x.dtype))
    return x.at[at].max(values) if reduce == "amax" else x.at[at].min(values)


@_extreme_at.defjvp
def _(whole, include_self, reduce, primals, tangents):
    (x, values, arrays), (dx, dvalues, _) = primals, tangents
    y = _extreme_at(x, values, arrays, whole, include_self, reduce)

    def read(array):
        return array.at[place(arrays, whole)].get(mode="fill")

    x_is_y = (x == y).astype(x.dtype)
    value_is_y = (values == read(y)).astype(x.dtype)
    ties = _add_at(x_is_y, value_is_y, arrays, whole)
    none = ties == 0  # the extreme is NaN, and so are all shares, of 0 as well
    by_x = jnp.where(none, jnp.nan, x_is_y / ties)
    by_value = jnp.where(read(none), jnp.nan, value_is_y / read(ties))
    if not include_self:
        dx = kept(dx, arrays, whole)
    return y, _add_at(by_x * dx, by_value * dvalues, arrays, whole)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _prod_at(x, values, arrays, whole, include_self, reduce):
    at = place(arrays, whole)
    start = x if include_self else x.at[at].set(jnp.ones((), x.dtype))
    return start.at[at].multiply(values)


@_prod_at.defjvp
def _(whole, include_self, reduce, primals, tangents):
    (x, values, arrays), (dx, dvalues, _) = primals, tangents
    options = arrays, whole, include_self, reduce

    def read(array):
        return array.at[place(arrays, whole)].get(mode="fill")

    y = _prod_at(x, values, *options)
    x_not_0 = jnp.where(x == 0, jnp.ones_like(x), x)
    by_x = _prod_at(x_not_0, values, *options) / x_not_0
    is_0 = values == 0
    zeros = _add_at(jnp.zeros_like(x), is_0.astype(x.dtype), arrays, whole)
    only_0 = is_0 & (read(zeros) == 1)
    without_0 = _prod_at(x, jnp.where(only_0, jnp.ones_like(values), values), *options)
    not_0 = jnp.where(is_0, jnp.ones_like(values), values)
    by_value = jnp.where(only_0, read(without_0), read(y) / not_0)
    if not include_self:
        dx = kept(dx, arrays, whole)
    return y, _add_at(by_x * dx, by_value * dvalues, arrays, whole)

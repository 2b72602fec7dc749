"""The largest element of each window, and where it lies.

Of equal elements the first is chosen, row by row; of NaNs the last.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._windows import Window, along, elements


# Of an array and an axis: the largest elements of windows along this axis alone, and their
# places on it.
Choice = Callable[[jax.Array, int], tuple[jax.Array, jax.Array]]

UNROLLED = 16  # windows up to this size are compared element by element, in one fused loop


def largest(x: jax.Array, choices: Sequence[Choice]) -> tuple[jax.Array, jax.Array]:
    """The largest elements of windows that are boxes: one window along each axis of space.

    The last axis is first: of the largest elements of all rows, the one of the first row is
    the first of all.

    Args:
      x: shape ``(N, C, ...)``.
      choices: one for each axis of space.

    Returns:
      The largest elements, and where they lie among all elements of space.
    """
    index, step, shape = jnp.zeros((), _index_dtype()), 1, x.shape
    for axis in reversed(range(2, x.ndim)):
        x, at = choices[axis - 2](x, axis)
        if index.ndim:
            index = jnp.take_along_axis(index, at, axis)
        index = index + at.astype(_index_dtype()) * step
        step *= shape[axis]
    return x, index


def sliding(window: Window, count: int, length: int) -> Choice:
    """Of ``count`` windows that slide along an axis of this length."""
    if window.size <= UNROLLED:
        return lambda x, axis: _slid(x, axis, window, count)
    positions = window.positions(count)
    first, last = _ends(positions, length)
    return listed(np.clip(positions, first[:, None], last[:, None]))


def listed(table: np.ndarray) -> Choice:
    """Of windows whose elements a table lists, shape ``(windows, elements)``."""

    def choose(x, axis):
        taken = jnp.take(lax.stop_gradient(x), table, axis)
        places = jnp.asarray(along(table, axis, x.ndim + 1), np.int32)
        return chosen(x, taken, jnp.broadcast_to(places, taken.shape), axis)

    return choose


def chosen(x, taken, places, axis) -> tuple[jax.Array, jax.Array]:
    """The largest along ``axis + 1`` of ``taken``; ``places`` says where on ``axis`` of x."""
    i = jnp.expand_dims(_argmax(taken, axis + 1), axis + 1)
    at = jnp.squeeze(jnp.take_along_axis(places, i, axis + 1), axis + 1)
    return jnp.take_along_axis(x, at, axis), at


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _slid(x, axis, window, count):
    positions = window.positions(count)
    first, _ = _ends(positions, x.shape[axis])
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    floating = jnp.issubdtype(x.dtype, jnp.floating)
    lowest = -jnp.inf if floating else jnp.iinfo(x.dtype).min
    best = jnp.full(shape, lowest, x.dtype)
    at = jnp.broadcast_to(_places(first, axis, x.ndim), shape)
    for i, element in enumerate(elements(x, axis, window, count, lowest)):
        better = (element > best) | (element != element)
        best = jnp.where(better, element, best)
        at = jnp.where(better, _places(positions[:, i], axis, x.ndim), at)
    return best, at


@_slid.defjvp
def _(axis, window, count, primals, tangents):
    ([x], [dx]) = primals, tangents
    best, at = _slid(x, axis, window, count)
    return (best, at), (_taken(dx, at, axis, window), np.zeros(at.shape, jax.dtypes.float0))


def _taken(x, at, axis, window):
    """The element of each window that lies at ``at``."""
    count = at.shape[axis]
    positions = window.positions(count)
    if np.array_equal(positions.ravel(), np.arange(x.shape[axis])):  # windows side by side
        x = x.reshape(*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :])
        is_it = jnp.expand_dims(at, axis + 1) == _places(positions, axis, x.ndim)
        return jnp.where(is_it, x, 0).sum(axis + 1)
    found = jnp.zeros(at.shape, x.dtype)
    for i, element in enumerate(elements(x, axis, window, count, 0)):
        found += jnp.where(at == _places(positions[:, i], axis, x.ndim), element, 0)
    return found


def _places(positions, axis, ndim):
    return jnp.asarray(along(positions, axis, ndim), np.int32)


def _ends(positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last position of each window that is not in the padding."""
    inside = (positions >= 0) & (positions < length)
    rows, size = np.arange(len(positions)), positions.shape[1]
    first, last = inside.argmax(1), size - 1 - inside[:, ::-1].argmax(1)
    return positions[rows, first], positions[rows, last]


def _argmax(x, axis):
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return jnp.argmax(x, axis)
    nan = jnp.isnan(x)
    last = x.shape[axis] - 1 - jnp.argmax(jnp.flip(nan, axis), axis)
    return jnp.where(jnp.any(nan, axis), last, jnp.argmax(x, axis))


def _index_dtype():
    return jax.dtypes.canonicalize_dtype(np.int64)

"""Pooling to a given size: window i of n covers floor(i L / n) to ceil((i + 1) L / n)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import wide
from ._pool_largest import largest, listed, sliding
from ._windows import Window, along, batched


Sizes = int | Sequence[int | None] | None


def adaptive_avg_pool1d(input: jax.Array, output_size: Sizes) -> jax.Array:
    """``torch.nn.functional.adaptive_avg_pool1d``: ``adaptive_avg_pool2d`` of 1 axis."""
    return _average(1, input, output_size)


def adaptive_avg_pool2d(input: jax.Array, output_size: Sizes) -> jax.Array:
    """``torch.nn.functional.adaptive_avg_pool2d``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, floating.
      output_size: of each axis; None leaves an axis as it is.

    Returns:
      Shape ``(N, C, *output_size)`` or ``(C, *output_size)``; the dtype of ``input``, summed
      in at least float32.
    """
    return _average(2, input, output_size)


def adaptive_avg_pool3d(input: jax.Array, output_size: Sizes) -> jax.Array:
    """``torch.nn.functional.adaptive_avg_pool3d``: ``adaptive_avg_pool2d`` of 3 axes."""
    return _average(3, input, output_size)


def adaptive_max_pool1d(input: jax.Array, output_size: Sizes, return_indices: bool = False):
    """``torch.nn.functional.adaptive_max_pool1d``: ``adaptive_max_pool2d`` of 1 axis."""
    return _largest(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: jax.Array, output_size: Sizes, return_indices: bool = False):
    """``torch.nn.functional.adaptive_max_pool2d``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, floating.
      output_size: of each axis; None leaves an axis as it is.
      return_indices: also say where each maximum lies in its ``H * W`` elements.

    Returns:
      Shape ``(N, C, *output_size)`` or ``(C, *output_size)`` in the dtype of ``input``; with
      ``return_indices`` a pair, the second of integers. Gradients as those of ``max_pool2d``.
    """
    return _largest(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: jax.Array, output_size: Sizes, return_indices: bool = False):
    """``torch.nn.functional.adaptive_max_pool3d``: ``adaptive_max_pool2d`` of 3 axes."""
    return _largest(3, input, output_size, return_indices)


def _average(n, input, output_size):
    x, alone = batched(input, n, f"adaptive_avg_pool{n}d")
    y = _averages(x, _sizes(x, output_size))
    return y[0] if alone else y


@partial(jax.jit, static_argnums=1)
def _averages(x, sizes):
    y = x.astype(wide(x.dtype))
    for axis, size in enumerate(sizes, start=2):
        y = _average_along(y, axis, size)
    return y.astype(x.dtype)


def _average_along(x, axis, size):
    length = x.shape[axis]
    if size and length % size == 0:
        parts = (*x.shape[:axis], size, length // size, *x.shape[axis + 1 :])
        return jnp.mean(x.reshape(parts), axis + 1)
    starts, ends = _windows(length, size)
    places = starts[:, None] + np.arange(np.max(ends - starts, initial=1))
    inside = along(places < ends[:, None], axis, x.ndim + 1)
    taken = jnp.take(x, np.minimum(places, length - 1), axis)
    counts = jnp.asarray(along(ends - starts, axis, x.ndim), x.dtype)
    return jnp.sum(jnp.where(inside, taken, 0), axis + 1) / counts


def _largest(n, input, output_size, return_indices):
    x, alone = batched(input, n, f"adaptive_max_pool{n}d")
    y, index = _largest_of(x, _sizes(x, output_size))
    if alone:
        y, index = y[0], index[0]
    return (y, index) if return_indices else y


@partial(jax.jit, static_argnums=1)
def _largest_of(x, sizes):
    return largest(x, [_choice(*ends) for ends in zip(x.shape[2:], sizes, strict=True)])


def _choice(length, size):
    if size and length % size == 0:
        return sliding(Window(length // size, length // size), size, length)
    starts, ends = _windows(length, size)
    places = starts[:, None] + np.arange(np.max(ends - starts, initial=1))
    return listed(np.minimum(places, ends[:, None] - 1))


def _windows(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each window starts and ends."""
    i = np.arange(size)
    return i * length // size, -(-(i + 1) * length // size)


def _sizes(x, output_size) -> tuple[int, ...]:
    """The sizes as one integer each."""
    n = x.ndim - 2
    if isinstance(output_size, int) or output_size is None:
        output_size = [output_size] * n
    if len(output_size) == 1:
        output_size = [*output_size] * n
    if len(output_size) != n:
        raise ValueError(f"output_size is {output_size}; give one integer or {n}.")
    return tuple(
        length if size is None else size
        for size, length in zip(output_size, x.shape[2:], strict=True)
    )

"""Windows that slide along an axis: their sizes, their number and their elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


Ints = int | Sequence[int]


class Window(NamedTuple):
    """A window along one axis, in elements of that axis.

    Args:
      size: number of its elements.
      stride: from one window to the next.
      padding: positions before the first element, and as many after the last.
      dilation: from one element to the next.
    """

    size: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1

    def positions(self, count: int) -> np.ndarray:
        """Where the elements of ``count`` windows lie, shape ``(count, size)``.

        Below 0 and from the length of the axis on, they lie in the padding.
        """
        starts = np.arange(count) * self.stride - self.padding
        return starts[:, None] + np.arange(self.size) * self.dilation

    def count(self, length: int, ceil_mode: bool = False) -> int:
        """How many windows an axis of this length has.

        With ``ceil_mode`` the last may reach beyond the padding, if it does not start there.
        """
        room = length + 2 * self.padding - self.dilation * (self.size - 1) - 1
        count = (room + (self.stride - 1 if ceil_mode else 0)) // self.stride + 1
        if ceil_mode and (count - 1) * self.stride >= length + self.padding:
            count -= 1
        if count < 1:
            raise ValueError(f"{self} does not fit an axis of length {length}.")
        return count


def per_axis(value: Ints, n: int, name: str) -> tuple[int, ...]:
    """One integer for each of ``n`` axes: PyTorch takes one for all of them, too.

    Raises:
      ValueError: there are neither 1 nor ``n`` integers.
    """
    values = [value] if isinstance(value, int) else list(value)
    if len(values) == 1:
        values *= n
    if len(values) != n:
        raise ValueError(f"{name} is {value}; give one integer or {n}.")
    return tuple(int(v) for v in values)


def windows(
    n: int, kernel_size: Ints, stride: Ints | None, padding: Ints, dilation: Ints = 1
) -> tuple[Window, ...]:
    """The window along each of ``n`` axes; without a stride, they lie side by side.

    Raises:
      ValueError: a number is too small.
    """
    sizes = per_axis(kernel_size, n, "kernel_size")
    strides = sizes if stride is None or stride in ((), []) else per_axis(stride, n, "stride")
    dilations = per_axis(dilation, n, "dilation")
    if min(sizes + strides + dilations) < 1:
        raise ValueError(
            f"{kernel_size=}, {stride=} and {dilation=} must be positive in every axis."
        )
    paddings = per_axis(padding, n, "padding")
    return tuple(map(Window, sizes, strides, paddings, dilations))


def elements(x: jax.Array, axis: int, window: Window, count: int, fill) -> list[jax.Array]:
    """The first elements of all windows along ``axis``, the second ones, and so on.

    Args:
      x: an array.
      axis: not negative.
      window: the window.
      count: number of windows.
      fill: what lies in the padding.

    Returns:
      ``window.size`` arrays of the shape of ``x``, ``count`` long on ``axis``.
    """
    last = (count - 1) * window.stride + (window.size - 1) * window.dilation
    after = last + 1 - window.padding - x.shape[axis]
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (window.padding, after, 0)
    padded = lax.pad(x, jnp.asarray(fill, x.dtype), config)
    starts = range(0, window.size * window.dilation, window.dilation)
    length = (count - 1) * window.stride + 1
    return [lax.slice_in_dim(padded, i, i + length, window.stride, axis) for i in starts]


def along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    """``values`` with their first axis at ``axis`` of ``ndim``, to be broadcast."""
    return values.reshape((1,) * axis + values.shape + (1,) * (ndim - axis - values.ndim))


def batched(input: jax.Array, n: int, name: str) -> tuple[jax.Array, bool]:
    """``input`` with an axis of samples, and whether it was put there.

    Raises:
      ValueError: the input has neither ``n + 1`` nor ``n + 2`` axes.
    """
    if input.ndim not in (n + 1, n + 2):
        raise ValueError(
            f"{name} takes inputs of {n + 1} or {n + 2} axes (channels and {n} of space, "
            f"samples first); this one has shape {input.shape}."
        )
    alone = input.ndim == n + 1
    return (input[None] if alone else input), alone

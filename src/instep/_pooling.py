"""The gradient of maximum pooling, in the form of it that XLA's CPU runs fast.

XLA finds what was chosen by a window over numbers and their places, and adds to it by a
scatter. To compare one place of the window after the other is the same, and fuses.
benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import ge_p

from ._computed_once import FEW, computed_once


MOST = {True: 64, False: 25}  # places in a window, of windows side by side, and of others


class Windows(NamedTuple):
    """Where windows lie; a number for each axis."""

    shape: tuple[int, ...]  # of what they lie on
    counts: tuple[int, ...]  # of windows
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Of the elements in a window."""
        return list(product(*map(range, self.sizes)))

    @property
    def are_side_by_side(self) -> bool:
        covered = tuple(n * k for n, k in zip(self.counts, self.sizes, strict=True))
        return self.sizes == self.strides and covered == self.shape

    @property
    def reach(self) -> list[int]:
        """Elements from one place in the first window to the same in the last."""
        return [(n - 1) * s + 1 for n, s in zip(self.counts, self.strides, strict=True)]

    def cut(self, padded: jax.Array, place: Sequence[int]) -> jax.Array:
        """The elements at one place of all windows, of shape ``counts``."""
        last = [i + reach for i, reach in zip(place, self.reach, strict=True)]
        return lax.slice(padded, place, last, self.strides)

    def around(self, place: Sequence[int]) -> list[tuple[int, int, int]]:
        """What lies before, behind and between the elements that ``cut`` takes."""
        axes = zip(place, self.reach, self.strides, self.shape, self.padding, strict=True)
        return [
            (i - low, size + low - i - reach, stride - 1)
            for i, reach, stride, size, (low, _) in axes
        ]


def has_a_faster_sum(eqn: JaxprEqn) -> bool:
    """Whether ``add_to_chosen`` is faster than XLA's form of ``eqn``."""
    source, operand = (cast(ShapedArray, v.aval) for v in eqn.invars)
    if not jnp.issubdtype(operand.dtype, jnp.inexact):
        return False
    if not all(isinstance(n, int) and n > 0 for n in source.shape + operand.shape):
        return False
    windows = _windows(source, operand, eqn.params)
    return math.prod(windows.sizes) <= MOST[windows.are_side_by_side]


def add_to_chosen(source: jax.Array, operand: jax.Array, params: dict[str, Any]) -> jax.Array:
    """``jax.lax.select_and_scatter_add``: each of ``source``, to what its window chose."""
    windows = _windows(source, operand, params)
    index = _chosen(operand, windows, params["select_prim"])
    index = computed_once(index) if index.size >= FEW else index
    if windows.are_side_by_side:
        return _spread(source, index, windows)
    zero = jnp.zeros((), source.dtype)
    total = jnp.zeros(operand.shape, source.dtype)
    for i, place in enumerate(windows.places):
        theirs = jnp.where(index == i, source, zero)
        total = total + lax.pad(theirs, zero, windows.around(place))
    return total


def _spread(source: jax.Array, index: jax.Array, windows: Windows) -> jax.Array:
    """Every window in full: its number of ``source`` where ``index`` says, and zeros."""
    ndim, zero = source.ndim, jnp.zeros((), source.dtype)
    inside = range(1, 2 * ndim, 2)  # an axis of places behind each axis of windows
    numbers = np.arange(math.prod(windows.sizes), dtype=np.int32).reshape(windows.sizes)
    places = np.expand_dims(numbers, tuple(range(0, 2 * ndim, 2)))
    is_there = lax.expand_dims(index, inside) == places
    return jnp.where(is_there, lax.expand_dims(source, inside), zero).reshape(windows.shape)


def _windows(source: Any, operand: Any, params: dict[str, Any]) -> Windows:
    return Windows(
        tuple(operand.shape),
        tuple(source.shape),
        tuple(params["window_dimensions"]),
        tuple(params["window_strides"]),
        tuple(params["padding"]),
    )


def _chosen(operand: jax.Array, windows: Windows, select: Any) -> jax.Array:
    """The number of the place that each window chose.

    The padding is what is chosen last, but is chosen as well: JAX has it so, and then nothing
    is added to anything.
    """
    last = jnp.full((), -jnp.inf if select is ge_p else jnp.inf, operand.dtype)
    padded = lax.pad(operand, last, [(*p, 0) for p in windows.padding])
    first, *others = windows.places
    chosen, index = windows.cut(padded, first), jnp.zeros(windows.counts, jnp.int32)
    for i, place in enumerate(others, 1):
        value = windows.cut(padded, place)
        stays = select.bind(chosen, value)
        chosen = jnp.where(stays, chosen, value)
        index = jnp.where(stays, index, jnp.int32(i))
    return index

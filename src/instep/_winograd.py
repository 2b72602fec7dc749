"""A 3x3 convolution in fewer multiplications: Winograd's minimal filtering F(2x2, 3x3).

A square of 2x2 results takes 36 multiplications. The 4x4 numbers under it and the 3x3 of the
filter, both transformed into tiles of 4x4, take 16, one for each place of a tile; and one place
of all tiles is a matrix product over channels, which XLA's CPU computes at a higher rate than a
convolution. The gradient of the kernel is the same transposed: a product over tiles.

The transforms add and halve, and rounding is as small as that of 36 terms; but all results of a
tile are rounded with the largest of its numbers, also those that a filter multiplies by zero.
What is not finite stays so, but as NaN, and other results of its tile may be NaN with it; so it
is with numbers above a quarter of the largest that there is.

Lavin and Gray, "Fast algorithms for convolutional neural networks", 2016, arXiv:1509.09308;
the names of the transforms are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import jax
import jax.numpy as jnp
from jax import lax

from ._computed_once import computed_once
from ._convolution import Convolution, cut
from ._in_parts import at_a_time, mapped, summed


Padding = Sequence[tuple[int, int]]
Grid = list[list[jax.Array]]
Transform = Callable[..., tuple[jax.Array, ...]]  # of what lies along one axis

KERNEL = (3, 3)
FEW = 32  # channels on a side
FEW_TILES = 64
NONE = ((0, 0), (0, 0))  # no padding


def has_few_products(c: Convolution) -> bool:
    """Of a 3x3 kernel without strides, or the gradient of one; large enough to be faster."""
    is_plain = {*c.strides, *c.x_dilation, *c.w_dilation, c.groups} == {1}
    if not is_plain or KERNEL not in (c.kernel, c.out) or not (c.is_wide and c.is_large):
        return False
    inputs = c.x.shape[-1 if c.kernel == KERNEL else 0]
    return min(inputs, c.w.shape[-1]) >= FEW and _at_a_time(c) * _tiles_of_one(c) >= FEW_TILES


def in_few_products(c: Convolution) -> jax.Array:
    """The convolution, of as many examples at a time as there is cache for their tiles."""
    return _of_the_image(c) if c.kernel == KERNEL else _to_the_kernel(c)


def _of_the_image(c: Convolution) -> jax.Array:
    outputs = c.w.shape[-1]
    w = computed_once(c.w.transpose(0, 1, 3, 2) if c.is_turned else c.w)
    u = _tiles(_g, [[w[i, j] for j in range(3)] for i in range(3)])
    over_channels = (((1,), (1 if c.is_turned else 0,)), ((), ()))
    squares = [_half(n) for n in c.out]

    def some(x: jax.Array) -> jax.Array:
        v = _tiles(_b_t, _every_other(_padded(x, c.padding, c.out), 4))
        m = [
            computed_once(lax.dot_general(a, b, over_channels, **c.dtypes))
            for a, b in zip(v, u, strict=True)
        ]
        y = _on_both_axes(_a_t, _square([x.reshape(-1, *squares, outputs) for x in m]))
        y = jnp.stack([jnp.stack(row, axis=3) for row in y], axis=2)
        y = y.reshape(-1, *(2 * n for n in squares), outputs)
        return y[:, : c.out[0], : c.out[1]]

    return mapped(some, computed_once(c.x), _at_a_time(c))


def _to_the_kernel(c: Convolution) -> jax.Array:
    """``x`` is the image, its channels as examples, and ``w`` the gradient of the results."""
    x, g = computed_once(c.x.transpose(3, 1, 2, 0)), computed_once(c.w.transpose(2, 0, 1, 3))
    over_tiles = (((0,), (0,)), ((), ()))

    def some(x: jax.Array, g: jax.Array) -> jax.Array:
        v = _tiles(_b_t, _every_other(_padded(x, c.padding, c.kernel), 4))
        w = _tiles(_a, _every_other(_padded(g, NONE, c.kernel), 2))
        pairs = zip(v, w, strict=True)
        m = [computed_once(lax.dot_general(a, b, over_tiles, **c.dtypes)) for a, b in pairs]
        return jnp.stack(m)

    m = summed(some, x, g, _at_a_time(c))
    dw = _on_both_axes(_g_t, _square(list(m)))
    return jnp.stack([jnp.stack(row, axis=1) for row in dw], axis=1)


def _at_a_time(c: Convolution) -> int:
    """Examples whose tiles are cached: the larger side's, or of both, and of their sums."""
    tiles, item = 16 * _tiles_of_one(c), c.x.dtype.itemsize
    outputs = c.w.shape[-1]
    if c.kernel == KERNEL:
        examples, inputs = c.x.shape[0], c.x.shape[-1]
        return at_a_time(examples, tiles * max(inputs, outputs) * item)
    inputs, examples = c.x.shape[0], c.x.shape[-1]
    sums = 16 * inputs * outputs * item
    return at_a_time(examples, tiles * (inputs + outputs) * item, at_least=sums)


def _tiles_of_one(c: Convolution) -> int:
    return math.prod(map(_half, c.out if c.kernel == KERNEL else c.kernel))


def _half(n: int) -> int:
    return (n + 1) // 2


def _padded(x: jax.Array, padding: Padding, results: tuple[int, ...]) -> jax.Array:
    """``x``, padded, and with one more where there is an odd number of results."""
    edges = [(low, high + n % 2, 0) for (low, high), n in zip(padding, results, strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _every_other(x: jax.Array, n: int) -> Grid:
    """The numbers at each of the ``n`` x ``n`` places of squares that lie two apart."""
    count = [(size - n) // 2 + 1 for size in x.shape[1:3]]
    return [[cut(x, (i, j), (1, 1), count, (2, 2)) for j in range(n)] for i in range(n)]


def _tiles(transform: Transform, grid: Grid) -> list[jax.Array]:
    """The sixteen places of all tiles, each a matrix with the channels last."""
    places = chain.from_iterable(_on_both_axes(transform, grid))
    return [computed_once(x.reshape(-1, x.shape[-1])) for x in places]


def _on_both_axes(transform: Transform, grid: Grid) -> Grid:
    columns = [transform(*column) for column in zip(*grid, strict=True)]
    return [list(transform(*row)) for row in zip(*columns, strict=True)]


def _square(places: list[jax.Array]) -> Grid:
    return [places[i : i + 4] for i in range(0, 16, 4)]


def _b_t(d0, d1, d2, d3):
    """Of the image."""
    return d0 - d2, d1 + d2, d2 - d1, d1 - d3


def _g(g0, g1, g2):
    """Of the filter."""
    return g0, (g0 + g1 + g2) / 2, (g0 - g1 + g2) / 2, g2


def _a_t(m0, m1, m2, m3):
    """To the results."""
    return m0 + m1 + m2, m1 - m2 - m3


def _a(y0, y1):
    """Of the gradient of the results."""
    return y0, y0 + y1, y0 - y1, -y1


def _g_t(m0, m1, m2, m3):
    """To the gradient of the filter."""
    return m0 + (m1 + m2) / 2, (m1 - m2) / 2, (m1 + m2) / 2 + m3

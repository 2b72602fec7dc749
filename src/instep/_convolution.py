"""One convolution: its operands and numbers, examples first and channels last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._channels_first import Value


LARGE = 2**25  # multiplications, from which on a form may take many operations more
WIDE = frozenset(map(jnp.dtype, ("float32", "float64")))


class Convolution(NamedTuple):
    """``jax.lax.conv_general_dilated``, in the layout of XLA's fast kernel."""

    x: jax.Array  # shape=(N, *S, groups * I)
    w: jax.Array  # shape=(*K, I, O)
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    x_dilation: Sequence[int]
    w_dilation: Sequence[int]
    groups: int
    dtypes: dict[str, Any]  # precision, preferred_element_type
    is_turned: bool = False  # whether w lies in memory as (*K, O, I)

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.w.shape[:-2]

    @property
    def elements(self) -> int:
        """Of the kernel."""
        return math.prod(self.kernel)

    @property
    def out(self) -> tuple[int, ...]:
        """The result's axes of space."""
        return tuple(
            max(0, (low + (n - 1) * between + high - (k - 1) * dilation) // stride + 1)
            for n, between, (low, high), k, dilation, stride in zip(
                self.x.shape[1:-1],
                self.x_dilation,
                self.padding,
                self.kernel,
                self.w_dilation,
                self.strides,
                strict=True,
            )
        )

    @property
    def is_large(self) -> bool:
        """So that many small operations take less time than they save."""
        return self.x.shape[0] * math.prod(self.out) * self.w.size >= LARGE

    @property
    def is_wide(self) -> bool:
        """All of it of one dtype, in which sums may be rounded on the way."""
        made = self.dtypes["preferred_element_type"] or self.x.dtype
        dtypes = {self.x.dtype, self.w.dtype, jnp.dtype(made)}
        return len(dtypes) == 1 and dtypes <= WIDE

    @property
    def padded(self) -> jax.Array:
        """``x`` with the zeros between its elements and around them."""
        edges = [(*p, d - 1) for p, d in zip(self.padding, self.x_dilation, strict=True)]
        return lax.pad(self.x, jnp.zeros((), self.x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def channels_last(
    lhs: Value, rhs: Value, params: dict[str, Any]
) -> tuple[Convolution, tuple[int, ...]]:
    """The convolution, and the order of axes that its result is asked for in."""
    (n, c, *s), (o, i, *k), (out_n, out_c, *out_s) = params["dimension_numbers"]
    x, w = lhs.transpose(n, *s, c), rhs.transpose(*k, i, o)
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    if batches > 1:  # groups of examples, each with its own filters: the same as of channels
        examples, *image, channels = x.shape
        x = x.reshape(batches, examples // batches, *image, channels)
        x = jnp.moveaxis(x, 0, -2).reshape(-1, *image, batches * channels)
    convolution = Convolution(
        x,
        w,
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        max(groups, batches),
        {name: params[name] for name in ("precision", "preferred_element_type")},
        is_turned=o < i,
    )
    return convolution, tuple(int(a) for a in np.argsort((out_n, *out_s, out_c)))


def cut(
    x: jax.Array,
    at: Sequence[int],
    by: Sequence[int],
    count: Sequence[int],
    steps: Sequence[int],
) -> jax.Array:
    """``count`` elements on each axis of space, ``steps`` apart, the first at ``at * by``."""
    first = [i * b for i, b in zip(at, by, strict=True)]
    last = [f + (n - 1) * s + 1 for f, n, s in zip(first, count, steps, strict=True)]
    n, *_, channels = x.shape
    return lax.slice(x, (0, *first, 0), (n, *last, channels), (1, *steps, 1))

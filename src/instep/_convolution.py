"""One convolution, in the form of it that XLA's CPU runs fast.

XLA brings a convolution into the one layout that its fast kernel takes, but only outside of
loops. Inside of one, and so in the accumulation of gradients, any other layout is computed
number by number, 10 to 60 times slower. benchmarks/NOTES.md has the measurements behind every
choice here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import JaxprEqn

from ._computed_once import computed_once
from ._dtypes import wide


MOST_CUTS = 64  # of an image, to make patches of it
MOST_TERMS = 25  # of a sum, for one channel


class Convolution(NamedTuple):
    """The operands and numbers of a convolution, examples first and channels last."""

    x: jax.Array  # shape=(N, *S, groups * I)
    w: jax.Array  # shape=(*K, I, O)
    strides: Sequence[int]
    padding: Sequence[tuple[int, int]]
    x_dilation: Sequence[int]
    w_dilation: Sequence[int]
    groups: int
    dtypes: dict[str, Any]  # precision, preferred_element_type

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.w.shape[:-2]

    @property
    def out(self) -> tuple[int, ...]:
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


def has_a_fast_layout(eqn: JaxprEqn) -> bool:
    """Of a convolution: over one to three axes of space."""
    return 1 <= len(eqn.params["window_strides"]) <= 3


def convolve(lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]) -> jax.Array:
    """``jax.lax.conv_general_dilated`` of what ``has_a_fast_layout``."""
    c, order = _channels_last(lhs, rhs, params)
    form, are_known = _as_convolution, all(isinstance(n, int) for n in lhs.shape + rhs.shape)
    if are_known and jnp.issubdtype(lhs.dtype, jnp.inexact):
        is_empty = 0 in (*c.x.shape, *c.w.shape, *c.out)
        if not is_empty and (_is_sum(c) or _is_product(c)):
            form = _as_sum if _is_sum(c) else _as_product
    return form(c).transpose(order)


def _channels_last(
    lhs: jax.Array, rhs: jax.Array, params: dict[str, Any]
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
    )
    return convolution, tuple(int(a) for a in np.argsort((out_n, *out_s, out_c)))


def _is_sum(c: Convolution) -> bool:
    """A filter for each channel, or one channel; and smaller than the result."""
    *_, inputs, outputs = c.w.shape
    is_depthwise = outputs == c.groups > 1
    is_alone = c.groups == 1 and _elements(c) <= MOST_TERMS and max(c.x_dilation) == 1
    return inputs == 1 and (is_depthwise or is_alone) and _elements(c) <= math.prod(c.out)


def _is_product(c: Convolution) -> bool:
    """Where the patches cost little, or the fast kernel is slow.

    Few elements in a filter or in the result, and nothing between those of the image; or a
    kernel that exceeds the image; or three axes of space.
    """
    elements, out = _elements(c), math.prod(c.out)
    if c.groups > 1 or min(elements, out) > MOST_CUTS:
        return False
    of_a_filter = elements * c.w.shape[-2]
    of_the_result = out * c.x.shape[0] if elements > out else math.inf
    is_thin = min(of_a_filter, of_the_result) <= MOST_CUTS or min(elements, out) == 1
    exceeds = any(k > n for k, n in zip(c.kernel, c.x.shape[1:-1], strict=True))
    return (is_thin and max(c.x_dilation) == 1) or exceeds or len(c.kernel) > 2


def _as_convolution(c: Convolution) -> jax.Array:
    """In the layout of the fast kernel."""
    axes = "DHW"[-len(c.kernel) :]
    return lax.conv_general_dilated(
        c.x,
        c.w,
        c.strides,
        c.padding,
        c.x_dilation,
        c.w_dilation,
        (f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=c.groups,
        **c.dtypes,
    )


def _as_sum(c: Convolution) -> jax.Array:
    """One term for each element of the kernel, fused, but not into every user of the sum."""
    made = c.dtypes["preferred_element_type"] or c.x.dtype
    x, w = _padded(c).astype(wide(made)), c.w.astype(wide(made))
    y = jnp.zeros((1,) * x.ndim, wide(made))
    for at in product(*map(range, c.kernel)):
        filters = lax.expand_dims(w[at][0], range(x.ndim - 1))
        y = y + _cut(x, at, c.w_dilation, c.out, c.strides) * filters
    return computed_once(y.astype(made))


def _as_product(c: Convolution) -> jax.Array:
    """A matrix of patches times a matrix of filters."""
    outputs = c.w.shape[-1]
    y = lax.dot(_patches(c), c.w.reshape(-1, outputs), **c.dtypes)
    return y.reshape(-1, *c.out, outputs)


def _patches(c: Convolution) -> jax.Array:
    """What the kernel meets everywhere, shape ``(N * out, K * I)``, in few cuts.

    One for each element of the kernel, or for each of the result.
    """
    x = _padded(c)
    n, channels = x.shape[0], x.shape[-1]
    if _elements(c) <= math.prod(c.out):
        places = product(*map(range, c.kernel))
        cuts = [_cut(x, at, c.w_dilation, c.out, c.strides) for at in places]
        patches = jnp.stack(cuts, axis=-2)
    else:
        places = product(*map(range, c.out))
        cuts = [_cut(x, at, c.strides, c.kernel, c.w_dilation) for at in places]
        patches = jnp.stack([cut.reshape(n, -1) for cut in cuts], axis=1)
    return patches.reshape(-1, _elements(c) * channels)


def _cut(
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


def _padded(c: Convolution) -> jax.Array:
    """``x`` with the zeros between its elements and around them."""
    edges = [(*p, d - 1) for p, d in zip(c.padding, c.x_dilation, strict=True)]
    return lax.pad(c.x, jnp.zeros((), c.x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])


def _elements(c: Convolution) -> int:
    return math.prod(c.kernel)

"""The form of a convolution that XLA's CPU runs fast.

XLA brings a convolution into the one layout that its fast kernel takes, but only outside of
loops. Inside of one, and so in the accumulation of gradients, any other layout is computed
number by number, 10 to 60 times slower. benchmarks/NOTES.md has the measurements behind every
choice here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import JaxprEqn

from ._channels_first import Value, transposed
from ._computed_once import computed_once
from ._convolution import Convolution, channels_last, cut
from ._dtypes import wide
from ._patches import as_product, in_parts, is_product, is_strided
from ._winograd import has_few_products, in_few_products


MOST_TERMS = 25  # of a sum, for one channel


def has_a_fast_layout(eqn: JaxprEqn) -> bool:
    """Of a convolution: over one to three axes of space."""
    return 1 <= len(eqn.params["window_strides"]) <= 3


def convolve(lhs: Value, rhs: Value, params: dict[str, Any]) -> Value:
    """``jax.lax.conv_general_dilated`` of what ``has_a_fast_layout``."""
    c, order = channels_last(lhs, rhs, params)
    return transposed(_form(c)(c), order)


def _form(c: Convolution) -> Callable[[Convolution], jax.Array]:
    are_known = all(isinstance(n, int) for n in c.x.shape + c.w.shape)
    if not are_known or not jnp.issubdtype(c.x.dtype, jnp.inexact):
        return _as_convolution
    if 0 in (*c.x.shape, *c.w.shape, *c.out):
        return _as_convolution
    return next((form for is_faster, form in FORMS if is_faster(c)), _as_convolution)


def _is_sum(c: Convolution) -> bool:
    """A filter for each channel, or one channel; and smaller than the result."""
    *_, inputs, outputs = c.w.shape
    is_depthwise = outputs == c.groups > 1
    is_alone = c.groups == 1 and c.elements <= MOST_TERMS and max(c.x_dilation) == 1
    return inputs == 1 and (is_depthwise or is_alone) and c.elements <= math.prod(c.out)


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
    x, w = c.padded.astype(wide(made)), c.w.astype(wide(made))
    y = jnp.zeros((1,) * x.ndim, wide(made))
    for at in product(*map(range, c.kernel)):
        filters = lax.expand_dims(w[at][0], range(x.ndim - 1))
        y = y + cut(x, at, c.w_dilation, c.out, c.strides) * filters
    return computed_once(y.astype(made))


FORMS = (  # the first that is faster
    (_is_sum, _as_sum),
    (is_strided, in_parts),
    (is_product, as_product),
    (has_few_products, in_few_products),
)

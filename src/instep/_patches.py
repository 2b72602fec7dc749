"""A convolution as a matrix product: what the kernel meets everywhere, times the filters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
from jax import lax

from ._computed_once import computed_once
from ._convolution import Convolution, cut
from ._in_parts import at_a_time, mapped, summed


MOST_CUTS = 64  # of an image, to make patches of it


def is_product(c: Convolution) -> bool:
    """Where the patches cost little, or the fast kernel is slow.

    Few elements in a filter or in the result, and nothing between those of the image; or a
    kernel that exceeds the image; or three axes of space.
    """
    elements, out = c.elements, math.prod(c.out)
    if c.groups > 1 or min(elements, out) > MOST_CUTS:
        return False
    of_a_filter = elements * c.w.shape[-2]
    of_the_result = out * c.x.shape[0] if elements > out else math.inf
    is_thin = min(of_a_filter, of_the_result) <= MOST_CUTS or min(elements, out) == 1
    exceeds = any(k > n for k, n in zip(c.kernel, c.x.shape[1:-1], strict=True))
    return (is_thin and max(c.x_dilation) == 1) or exceeds or len(c.kernel) > 2


def as_product(c: Convolution) -> jax.Array:
    """Patches ``(N * out, K * I)`` times filters, in few cuts of the image.

    One for each element of the kernel, or for each of the result.
    """
    x, outputs = c.padded, c.w.shape[-1]
    if c.elements <= math.prod(c.out):
        places = product(*map(range, c.kernel))
        cuts = [cut(x, at, c.w_dilation, c.out, c.strides) for at in places]
        patches = jnp.stack(cuts, axis=-2)
    else:
        places = product(*map(range, c.out))
        cuts = [cut(x, at, c.strides, c.kernel, c.w_dilation) for at in places]
        patches = jnp.stack([patch.reshape(len(x), -1) for patch in cuts], axis=1)
    w = c.w.reshape(-1, outputs)
    y = lax.dot(patches.reshape(-1, len(w)), w, **c.dtypes)
    return y.reshape(-1, *c.out, outputs)


def is_strided(c: Convolution) -> bool:
    """A large convolution with strides over two axes, or the gradient of the kernel of one."""
    is_plain = {*c.x_dilation, c.groups} == {1} and c.is_wide and c.is_large
    steps = max(c.strides), max(c.w_dilation)  # the strides, and where the gradient has them
    if len(c.kernel) != 2 or not is_plain or min(steps) > 1 or max(steps) == 1:
        return False
    elements, rest = (c.elements, math.prod(c.out))[:: 1 if steps[0] > 1 else -1]
    return elements <= min(MOST_CUTS, rest) and _at_a_time(c) > 0


def in_parts(c: Convolution) -> jax.Array:
    """Patches times filters, of a few examples at a time."""
    return _of_the_image(c) if max(c.strides) > 1 else _to_the_kernel(c)


def _of_the_image(c: Convolution) -> jax.Array:
    outputs = c.w.shape[-1]
    w = computed_once(c.w).reshape(-1, outputs)

    def some(x: jax.Array) -> jax.Array:
        patches = _flat(c._replace(x=x), c.kernel, c.w_dilation, c.out, c.strides)
        return lax.dot(patches, w, **c.dtypes).reshape(-1, *c.out, outputs)

    return mapped(some, computed_once(c.x), _at_a_time(c))


def _to_the_kernel(c: Convolution) -> jax.Array:
    """``x`` is the image, its channels as examples, and ``w`` the gradient of the results."""
    x, g = computed_once(c.x.transpose(3, 1, 2, 0)), computed_once(c.w.transpose(2, 0, 1, 3))
    inputs, outputs = x.shape[-1], g.shape[-1]

    def some(x: jax.Array, g: jax.Array) -> jax.Array:
        patches = _flat(c._replace(x=x), c.out, c.strides, c.kernel, c.w_dilation)
        over_all = (((0,), (0,)), ((), ()))
        dw = lax.dot_general(patches, g.reshape(-1, outputs), over_all, **c.dtypes)
        return computed_once(dw)

    return (
        summed(some, x, g, _at_a_time(c)).reshape(*c.out, inputs, outputs).transpose(2, 0, 1, 3)
    )


def _at_a_time(c: Convolution) -> int:
    """Examples whose patches are cached; or they and the sums."""
    of_a_channel = math.prod(c.out) * c.elements * c.x.dtype.itemsize
    if max(c.strides) > 1:
        examples, inputs = c.x.shape[0], c.x.shape[-1]
        return at_a_time(examples, of_a_channel * inputs)
    inputs, examples = c.x.shape[0], c.x.shape[-1]
    sums = math.prod(c.out) * inputs * c.w.shape[-1] * c.x.dtype.itemsize
    return at_a_time(examples, of_a_channel * inputs, at_least=sums)


def _flat(
    c: Convolution,
    kernel: Sequence[int],
    dilation: Sequence[int],
    count: Sequence[int],
    strides: Sequence[int],
) -> jax.Array:
    """Patches ``(N * count, kernel * channels)``."""
    x, places = c.padded, product(*map(range, kernel))
    cuts = [cut(x, at, dilation, count, strides).reshape(-1, x.shape[-1]) for at in places]
    return computed_once(jnp.concatenate(cuts, axis=-1))

"""Maximum pooling by windows that lie at random."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._pool_largest import chosen, largest
from ._windows import Ints, batched, per_axis


def fractional_max_pool(
    input: jax.Array, kernel_size: Ints, output_size: Ints, random_samples: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``torch.nn.functional.fractional_max_pool2d`` or 3d, given the random numbers.

    Window :math:`i` of :math:`n` starts at :math:`\\lfloor (i + u) \\alpha \\rfloor -
    \\lfloor u \\alpha \\rfloor`, where :math:`\\alpha = (L - k) / (n - 1)`; the last one ends
    with the axis.

    Args:
      input: shape ``(N, C, H, W)`` or ``(N, C, D, H, W)``, or without samples; floating.
      kernel_size: :math:`k`, one integer or one for each axis.
      output_size: :math:`n`, likewise.
      random_samples: :math:`u`, shape ``(N, C, 2)`` or ``(N, C, 3)``, in [0, 1); of images, x
        comes first, of volumes depth, then y. What is beyond N is not read.

    Returns:
      The largest elements, and where they lie among all elements of space, as ``max_pool2d``.

    Raises:
      ValueError: the windows do not fit.

    References:
      Graham, `Fractional Max-Pooling <https://arxiv.org/abs/1412.6071>`_, 2014.
    """
    n = random_samples.shape[-1]
    x, alone = batched(input, n, f"fractional_max_pool{n}d")
    kernels = per_axis(kernel_size, n, "kernel_size")
    sizes = per_axis(output_size, n, "output_size")
    choices = []
    for axis, (size, kernel, length) in enumerate(
        zip(sizes, kernels, x.shape[2:], strict=True)
    ):
        if size + kernel - 1 > length:
            raise ValueError(
                f"{size} windows of {kernel} elements do not fit an axis of {length}."
            )
        u = random_samples[: len(x), :, 1 - axis if n == 2 else axis]
        starts = _starts(u, length, kernel, size)
        choices.append(partial(_choose, starts=starts, kernel=kernel))
    y, index = largest(x, choices)
    return (y[0], index[0]) if alone else (y, index)


def _starts(u, length, kernel, size):
    """Of ``size`` windows, for each sample and channel: shape ``(N, C, size)``."""
    last = jnp.full((*u.shape, 1), length - kernel, np.int32)
    if size == 1:
        return last
    alpha = np.asarray((length - kernel) / (size - 1), u.dtype)
    i = jnp.arange(size - 1, dtype=u.dtype).reshape(1, 1, -1)
    u = u[..., None]
    starts = jnp.trunc((i + u) * alpha) - jnp.trunc(u * alpha)
    return jnp.concatenate([starts.astype(np.int32), last], -1)


def _choose(x, axis, starts, kernel):
    n, c, size = starts.shape
    places = starts[..., None] + jnp.arange(kernel, dtype=np.int32).reshape(1, 1, 1, -1)
    before, after = [1] * (axis - 2), [1] * (x.ndim - axis - 1)
    shape = (*x.shape[:axis], size, kernel, *x.shape[axis + 1 :])
    places = jnp.broadcast_to(places.reshape(n, c, *before, size, kernel, *after), shape)
    flat = places.reshape(*shape[:axis], size * kernel, *shape[axis + 2 :])
    taken = jnp.take_along_axis(lax.stop_gradient(x), flat, axis).reshape(shape)
    return chosen(x, taken, places, axis)

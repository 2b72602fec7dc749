"""Average pooling."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._dtypes import wide
from ._windows import Ints, Window, along, batched, windows


def avg_pool1d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> jax.Array:
    """``torch.nn.functional.avg_pool1d``: ``avg_pool2d`` with one axis of space."""
    window = windows(1, kernel_size, stride, padding)
    return _pool(input, window, ceil_mode, count_include_pad, None)


def avg_pool2d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """``torch.nn.functional.avg_pool2d``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, floating or integers.
      kernel_size, stride, padding: of the window, one integer or one for each axis; without a
        stride, windows lie side by side. The padding is zero.
      ceil_mode: keep a last window that reaches beyond the padding.
      count_include_pad: divide by the number of elements and of padding in the window; else
        by that of elements alone. What lies beyond the padding never counts.
      divisor_override: divide by this number instead.

    Returns:
      Shape ``(N, C, ...)`` or ``(C, ...)`` in the dtype of ``input``, summed in at least
      float32; of integers, rounded towards zero.

    Raises:
      ValueError: the window is padded by more than half of its size, or fits nowhere; or the
        divisor is zero.
    """
    window = windows(2, kernel_size, stride, padding)
    return _pool(input, window, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> jax.Array:
    """``torch.nn.functional.avg_pool3d``: ``avg_pool2d`` with three axes of space."""
    window = windows(3, kernel_size, stride, padding)
    return _pool(input, window, ceil_mode, count_include_pad, divisor_override)


def _pool(input, window, ceil_mode, count_include_pad, divisor):
    if divisor == 0:
        raise ValueError("divisor_override is 0; give another number, or None.")
    x, alone = batched(input, len(window), f"avg_pool{len(window)}d")
    for w in window:
        if not 0 <= 2 * w.padding <= w.size:
            raise ValueError(f"{w}: the padding must be between 0 and half of its size.")
    y = _averages(x, window, ceil_mode, count_include_pad, divisor)
    return y[0] if alone else y


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _averages(x, window, ceil_mode, count_include_pad, divisor):
    floating = jnp.issubdtype(x.dtype, jnp.inexact)
    wider = x.astype(wide(x.dtype)) if floating else x
    after, number = [], np.full([1] * x.ndim, divisor or 1)
    for axis, w in enumerate(window, start=2):
        length = x.shape[axis]
        count = w.count(length, ceil_mode)
        after.append(max((count - 1) * w.stride + w.size - w.padding - length, 0))
        if divisor is None:
            elements = _elements(w, count, length, count_include_pad)
            number = number * along(elements, axis, x.ndim)
    sums = lax.reduce_window(
        wider,
        np.zeros((), wider.dtype),
        lax.add,
        (1, 1, *(w.size for w in window)),
        (1, 1, *(w.stride for w in window)),
        [(0, 0), (0, 0), *((w.padding, a) for w, a in zip(window, after, strict=True))],
    )
    divisors = jnp.broadcast_to(jnp.asarray(number, sums.dtype), sums.shape)
    return lax.div(sums, divisors).astype(x.dtype)


def _elements(window: Window, count: int, length: int, with_padding: bool) -> np.ndarray:
    """How many elements each window has."""
    starts = np.arange(count) * window.stride - window.padding
    ends = np.minimum(starts + window.size, length + window.padding)
    if not with_padding:
        starts, ends = np.maximum(starts, 0), np.minimum(ends, length)
    return np.maximum(ends - starts, 1)

"""Maximum pooling, whose gradient goes to the element that was chosen."""

from __future__ import annotations

from functools import partial

import jax

from ._pool_largest import largest, sliding
from ._windows import Ints, Window, batched, windows


def max_pool1d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """``torch.nn.functional.max_pool1d``: ``max_pool2d`` with one axis of space."""
    window = windows(1, kernel_size, stride, padding, dilation)
    return max_pool(input, window, ceil_mode, return_indices)


def max_pool2d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """``torch.nn.functional.max_pool2d``.

    Of equal elements the first is chosen, row by row; of NaNs the last one.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, real or integers.
      kernel_size, stride, padding, dilation: of the window, one integer or one for each axis;
        without a stride, windows lie side by side. The padding is never chosen.
      ceil_mode: keep a last window that reaches beyond the padding.
      return_indices: also say where each maximum lies in its ``H * W`` elements.

    Returns:
      Shape ``(N, C, ...)`` or ``(C, ...)`` in the dtype of ``input``; with ``return_indices``
      a pair, the second of integers.

    Raises:
      ValueError: the window is padded by more than half of its reach, or fits nowhere.
    """
    window = windows(2, kernel_size, stride, padding, dilation)
    return max_pool(input, window, ceil_mode, return_indices)


def max_pool3d(
    input: jax.Array,
    kernel_size: Ints,
    stride: Ints | None = None,
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """``torch.nn.functional.max_pool3d``: ``max_pool2d`` with three axes of space."""
    window = windows(3, kernel_size, stride, padding, dilation)
    return max_pool(input, window, ceil_mode, return_indices)


def max_pool(input, window: tuple[Window, ...], ceil_mode: bool, return_indices: bool):
    """``max_pool2d`` with an axis of space for each window."""
    x, alone = batched(input, len(window), f"max_pool{len(window)}d")
    for w in window:
        if not 0 <= 2 * w.padding <= w.dilation * (w.size - 1) + 1:
            raise ValueError(f"{w}: the padding must be between 0 and half of its reach.")
    counts = tuple(w.count(n, ceil_mode) for w, n in zip(window, x.shape[2:], strict=True))
    y, index = _pooled(x, window, counts)
    if alone:
        y, index = y[0], index[0]
    return (y, index) if return_indices else y


@partial(jax.jit, static_argnums=(1, 2))
def _pooled(x, window, counts):
    sizes = zip(window, counts, x.shape[2:], strict=True)
    return largest(x, [sliding(w, count, length) for w, count, length in sizes])

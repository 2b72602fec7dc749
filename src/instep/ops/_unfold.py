"""Patches of images as columns, and their sum back into images."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from ._windows import Ints, Window, batched, elements, per_axis, windows


def unfold(
    input: jax.Array,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """``torch.nn.functional.unfold``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``.
      kernel_size, dilation, padding, stride: of the patches, one integer or one for each axis.
        The padding is zero.

    Returns:
      Shape ``(N, C kH kW, L)`` or ``(C kH kW, L)``, for ``L`` patches, row by row.

    Raises:
      ValueError: no patch fits.
    """
    window = windows(2, kernel_size, stride, padding, dilation)
    x, alone = batched(input, 2, "unfold")
    y = _patches(x, window)
    return y[0] if alone else y


def fold(
    input: jax.Array,
    output_size: Ints,
    kernel_size: Ints,
    dilation: Ints = 1,
    padding: Ints = 0,
    stride: Ints = 1,
) -> jax.Array:
    """``torch.nn.functional.fold``: sums patches where they overlap.

    Args:
      input: shape ``(N, C kH kW, L)`` or ``(C kH kW, L)``, floating.
      output_size: height and width of the image.
      kernel_size, dilation, padding, stride: of the patches, one integer or one for each axis.

    Returns:
      Shape ``(N, C, H, W)`` or ``(C, H, W)``.

    Raises:
      ValueError: the image has another number of patches, or the patches another size.
    """
    window = windows(2, kernel_size, stride, padding, dilation)
    sizes = per_axis(output_size, 2, "output_size")
    x, alone = batched(input, 1, "fold")
    area = window[0].size * window[1].size
    count = window[0].count(sizes[0]) * window[1].count(sizes[1])
    if x.shape[1] % area or x.shape[2] != count:
        raise ValueError(
            f"input of shape {input.shape} must have a multiple of {area} channels (the size "
            f"of a patch) and {count} patches, as an image of {sizes} has."
        )
    image = jax.ShapeDtypeStruct((x.shape[0], x.shape[1] // area, *sizes), x.dtype)
    [y] = jax.linear_transpose(partial(_patches, window=window), image)(x)
    return y[0] if alone else y


@partial(jax.jit, static_argnames="window")
def _patches(x: jax.Array, window: tuple[Window, ...]) -> jax.Array:
    n, c, h, w = x.shape
    rows, columns = window[0].count(h), window[1].count(w)
    x = jnp.stack(elements(x, 2, window[0], rows, 0), 2)  # (N, C, kH, rows, W)
    x = jnp.stack(elements(x, 4, window[1], columns, 0), 3)  # (N, C, kH, kW, rows, columns)
    return x.reshape(n, c * window[0].size * window[1].size, rows * columns)

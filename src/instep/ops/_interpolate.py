"""Resizing images, one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import wide
from ._resample import antialiased, cubic, linear, nearest, nearest_exact


# Of an axis, its two lengths, the scale factor or None, align_corners, and the dtype it is
# computed in: the resized array.
_MODES = {
    "nearest": (nearest, (1, 2, 3)),
    "nearest-exact": (nearest_exact, (1, 2, 3)),
    "linear": (linear, (1,)),
    "bilinear": (linear, (2,)),
    "trilinear": (linear, (3,)),
    "bicubic": (cubic, (2,)),
}
_ANTIALIASED = {
    "bilinear": partial(antialiased, "linear"),
    "bicubic": partial(antialiased, "cubic"),
    "lanczos": partial(antialiased, "lanczos"),
}


def interpolate(
    input: jax.Array,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> jax.Array:
    """``torch.nn.functional.interpolate``, all modes but "area".

    "area" is ``adaptive_avg_pool2d`` to the same size.

    Args:
      input: shape ``(N, C, ...)`` with 1 to 3 axes of space; floating, or integers.
      size: of the output, one integer or one for each axis of space.
      scale_factor: instead of ``size``; the output has ``floor(length * scale_factor)``.
      mode: "nearest", "nearest-exact", "linear" (1 axis of space), "bilinear" and "bicubic"
        (2), "trilinear" (3). "nearest" rounds down and "nearest-exact" does not.
      align_corners: the corner pixels of both images lie on each other; else the corners of
        the images do.
      recompute_scale_factor: take the scale factor from the lengths.
      antialias: for "bilinear" and "bicubic": widen the filter where the image shrinks.

    Returns:
      The dtype of ``input``, summed in at least float32.

    Raises:
      ValueError: not exactly one of size and scale factor, or a mode of other axes.
      NotImplementedError: integers and a mode that is not of nearest elements.
    """
    if (size is None) == (scale_factor is None):
        raise ValueError(f"{size=} and {scale_factor=}: give one of them.")
    lengths = input.shape[2:]
    n = len(lengths)
    scales: list[float | None] = [None] * n
    if size is not None:
        sizes = [size] * n if isinstance(size, int) else list(size)
    else:
        given = np.broadcast_to(np.asarray(scale_factor, float), n).tolist()
        sizes = [int(length * s) for length, s in zip(lengths, given, strict=True)]
        if not recompute_scale_factor:
            scales = [*given]
    return resize(input, sizes, scales, mode, bool(align_corners), antialias)


def resize(
    input: jax.Array,
    sizes: Sequence[int],
    scales: Sequence[float | None],
    mode: str,
    align_corners: bool = False,
    antialias: bool = False,
) -> jax.Array:
    """``interpolate`` as ``aten.upsample_bilinear2d`` and its kin: lengths and factors given.

    Args:
      input, mode, align_corners, antialias: as for ``interpolate``.
      sizes: one for each axis of space.
      scales: factors where they are not the quotients of the lengths, else None.
    """
    n = input.ndim - 2
    if antialias and mode in _ANTIALIASED:
        along_axis, axes = _ANTIALIASED[mode], (2,)
    elif not antialias and mode in _MODES:
        along_axis, axes = _MODES[mode]
    else:
        modes = sorted(_ANTIALIASED if antialias else _MODES)
        raise ValueError(f"{mode=} with {antialias=}: the modes are {modes}.")
    if n not in axes or len(sizes) != n:
        raise ValueError(
            f"{mode=} takes {' or '.join(map(str, axes))} axes of space after samples and "
            f"channels, and a size of each; input of shape {input.shape}, sizes {list(sizes)}."
        )
    if min(sizes) < 1 or min(input.shape[2:]) < 1:
        raise ValueError(f"an image of {input.shape[2:]} cannot become one of {list(sizes)}.")
    if not jnp.issubdtype(input.dtype, jnp.floating) and not mode.startswith("nearest"):
        raise NotImplementedError(
            f"{mode=} of {input.dtype} rounds; here it takes floating inputs. Cast the input, "
            f"or use mode='nearest'."
        )
    return _resized(input, along_axis, tuple(map(int, sizes)), tuple(scales), align_corners)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def _resized(input, along_axis, sizes, scales, align_corners):
    floating = jnp.issubdtype(input.dtype, jnp.floating)
    x = input.astype(wide(input.dtype)) if floating else input
    for axis, (size, scale) in enumerate(zip(sizes, scales, strict=True), start=2):
        x = along_axis(x, axis, size, scale, align_corners)
    return x.astype(input.dtype)

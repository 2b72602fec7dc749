"""Images sampled at given places."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._resample import cubic_weights


def grid_sample(
    input: jax.Array,
    grid: jax.Array,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> jax.Array:
    """``torch.nn.functional.grid_sample``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(N, C, D, H, W)``, floating.
      grid: shape ``(N, ..., 2)`` or ``(N, ..., 3)``, x first, between -1 (left) and 1 (right),
        of the dtype of ``input``.
      mode: "bilinear" (of volumes, trilinear), "nearest", or, of images, "bicubic".
      padding_mode: outside lie "zeros", the nearest element ("border"), or the mirrored image
        ("reflection").
      align_corners: -1 and 1 are the centers of the first and the last element; else they are
        the edges of the image.

    Returns:
      Shape ``(N, C, ...)``.

    Raises:
      ValueError: a mode is none of these, or the shapes do not fit.
    """
    n = input.ndim - 2
    if n not in (2, 3) or grid.ndim != n + 2 or grid.shape[-1] != n:
        raise ValueError(
            f"grid_sample takes images with a grid of shape (N, H, W, 2), or volumes with one "
            f"of (N, D, H, W, 3); input of shape {input.shape}, grid of shape {grid.shape}."
        )
    modes = ("bilinear", "nearest", "bicubic")[: 5 - n]
    if mode not in modes or padding_mode not in _PADDED:
        raise ValueError(
            f"{mode=} must be one of {modes}, {padding_mode=} one of {tuple(_PADDED)}."
        )
    return _sampled(input, grid, mode, padding_mode, bool(align_corners))


def affine_grid(
    theta: jax.Array, size: Sequence[int], align_corners: bool | None = None
) -> jax.Array:
    """``torch.nn.functional.affine_grid``: the grid of an affine map, for ``grid_sample``.

    Args:
      theta: shape ``(N, 2, 3)``, or ``(N, 3, 4)`` for volumes.
      size: shape of the images, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
      align_corners: as in ``grid_sample``.

    Returns:
      Shape ``(N, H, W, 2)`` or ``(N, D, H, W, 3)``, of the dtype of ``theta``.

    Raises:
      ValueError: the shapes do not fit.
    """
    n = len(size) - 2
    if theta.shape != (size[0], n, n + 1) or n not in (2, 3):
        raise ValueError(f"theta of shape {theta.shape} does not map images of {tuple(size)}.")
    steps = []
    for length in size[2:]:
        x = jnp.linspace(-1, 1, length, dtype=theta.dtype)
        x = jnp.zeros_like(x) if length == 1 else x
        steps.append(x if align_corners else x * ((length - 1) / length))
    axes = jnp.meshgrid(*steps, indexing="ij")
    places = jnp.stack([*reversed(axes), jnp.ones_like(axes[0])], -1)
    return jnp.einsum("...j,nij->n...i", places, theta)


@partial(jax.jit, static_argnums=(2, 3, 4))
def _sampled(input, grid, mode, padding_mode, corners):
    sizes = input.shape[2:]
    taps = []
    for axis, size in enumerate(sizes):
        x = grid[..., len(sizes) - 1 - axis] + 1
        x = x / 2 * (size - 1) if corners else (x * size - 1) / 2
        inside = partial(_PADDED[padding_mode], size=size, corners=corners)
        if mode == "bicubic":
            taps.append(_cubic_taps(x, inside))
        else:
            taps.append((_linear_taps if mode == "bilinear" else _nearest_taps)(inside(x)))
    return sum(_weighted(input, tap) for tap in itertools.product(*taps))


def _linear_taps(x):
    low = lax.stop_gradient(jnp.floor(x))
    return [(low, 1 - (x - low)), (low + 1, x - low)]


def _nearest_taps(x):
    return [(jnp.round(x), jnp.ones_like(x))]


def _cubic_taps(x, inside):
    low = lax.stop_gradient(jnp.floor(x))
    places = [lax.stop_gradient(inside(low + i)) for i in (-1, 0, 1, 2)]
    return list(zip(places, cubic_weights(x - low), strict=True))


def _weighted(input, taps):
    """One neighbour of each place, along each axis, times its weight; 0 if it is outside."""
    sizes = input.shape[2:]
    index, valid, weight = [], True, 1
    for (place, w), size in zip(taps, sizes, strict=True):
        valid = valid & (place >= 0) & (place <= size - 1)
        weight = weight * w
    for (place, _), _ in zip(taps, sizes, strict=True):
        index.append(jnp.where(valid, place, 0).astype(np.int32))
    taken = jax.vmap(lambda x, *i: x[:, *i])(input, *index)
    return jnp.where(valid[:, None], taken * weight[:, None], 0)


def _as_is(x, size, corners):
    del size, corners
    return x


def _clipped(x, size, corners):
    """To the image; at its edges the slope is 0."""
    del corners
    return jnp.where(x > 0, jnp.where(x < size - 1, x, size - 1), 0)


def _reflected(x, size, corners):
    """Mirrored at the centers of the corner elements, or at the edges of the image."""
    start, span = (0.0, size - 1) if corners else (-0.5, size)
    if span == 0:
        return jnp.zeros_like(x)
    x = jnp.where(x < start, start - x, x - start)
    rest = lax.rem(x, jnp.full_like(x, span))
    even = jnp.floor(x / span) % 2 == 0
    return _clipped(jnp.where(even, rest, span - rest) + start, size, corners)


_PADDED = {"zeros": _as_is, "border": _clipped, "reflection": _reflected}

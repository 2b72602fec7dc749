"""Images sampled at given places."""

from __future__ import annotations

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
    """All neighbours at once: they lie on one axis for each axis of space, after samples."""
    n, sizes = input.ndim - 2, input.shape[2:]
    index = jnp.zeros([1] * (2 * n + 1), np.int32)
    valid, weight = jnp.ones_like(index, bool), jnp.ones_like(index, grid.dtype)
    for axis, size in enumerate(sizes):
        x = grid[..., n - 1 - axis] + 1
        x = x / 2 * (size - 1) if corners else (x * size - 1) / 2
        inside = partial(_PADDED[padding_mode], size=size, corners=corners)
        places, weights = _NEIGHBOURS[mode](x, inside)
        others = [1 + i for i in range(n) if i != axis]
        places, weights = (jnp.expand_dims(jnp.stack(v, 1), others) for v in (places, weights))
        there = (places >= 0) & (places <= size - 1)
        index = index * size + jnp.where(there, places, 0).astype(np.int32)
        valid, weight = valid & there, weight * weights
    flat = input.reshape(*input.shape[:2], -1)
    taken = jax.vmap(lambda image, i: image[:, i])(flat, index)
    terms = jnp.where(valid[:, None], taken * weight[:, None], 0)
    return jnp.sum(terms, range(2, 2 + n))


def _linear(x, inside):
    x = inside(x)
    low = lax.stop_gradient(jnp.floor(x))
    return (low, low + 1), (1 - (x - low), x - low)


def _nearest(x, inside):
    x = jnp.round(inside(x))
    return (x,), (jnp.ones_like(x),)


def _cubic(x, inside):
    low = lax.stop_gradient(jnp.floor(x))
    return [lax.stop_gradient(inside(low + i)) for i in (-1, 0, 1, 2)], cubic_weights(x - low)


# Of places and what maps them into the image: the places of neighbours, and their weights.
_NEIGHBOURS = {"bilinear": _linear, "nearest": _nearest, "bicubic": _cubic}


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

"""One axis of an image at other places: nearest elements, and weighted sums of neighbours."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._windows import along


def nearest(x: jax.Array, axis: int, size: int, scale: float | None, _corners: bool):
    """Element floor(i L / size)."""
    return _taken(x, axis, size, np.arange(size, dtype=np.float32), scale)


def nearest_exact(x: jax.Array, axis: int, size: int, scale: float | None, _corners: bool):
    """Element floor((i + 1/2) L / size)."""
    half = np.float32(0.5)
    return _taken(x, axis, size, np.arange(size, dtype=np.float32) + half, scale)


def linear(x: jax.Array, axis: int, size: int, scale: float | None, align_corners: bool):
    """The two neighbours, weighted by how near they are."""
    length, real = x.shape[axis], x.dtype.type
    at = np.maximum(_places(length, size, scale, align_corners, real), real(0))
    low = np.minimum(np.floor(at).astype(int), length - 1)
    share = np.clip(at - low.astype(real), 0, 1)
    places = np.stack([low, np.minimum(low + 1, length - 1)], 1)
    return _weighted(x, axis, places, np.stack([1 - share, share], 1))


def cubic(x: jax.Array, axis: int, size: int, scale: float | None, align_corners: bool):
    """Four neighbours, weighted by Keys' cubic with a = -3/4."""
    length, real = x.shape[axis], x.dtype.type
    at = _places(length, size, scale, align_corners, real)
    low = np.minimum(np.floor(at).astype(int), length - 1)
    share = np.clip(at - low.astype(real), 0, 1)
    places = np.clip(low[:, None] + np.arange(-1, 3), 0, length - 1)
    return _weighted(x, axis, places, np.stack(cubic_weights(share), 1))


def antialiased(
    kind: str, x: jax.Array, axis: int, size: int, scale: float | None, align_corners: bool
):
    """All elements that a filter reaches, widened by the factor that the image shrinks by."""
    length, real = x.shape[axis], x.dtype.type
    step = _step(length, size, scale, align_corners, real)
    widened = max(step, real(1))
    reach, filter = _FILTERS[kind]
    center = step * (np.arange(size, dtype=real) + real(0.5))
    first = np.maximum((center - reach * widened + real(0.5)).astype(int), 0)
    last = np.minimum((center + reach * widened + real(0.5)).astype(int), length)
    places = first[:, None] + np.arange(max(1, int(np.max(last - first))))
    inside = places < last[:, None]
    weights = filter(np.abs(places - center[:, None] + real(0.5)) / widened)
    weights = np.where(inside, weights, 0).astype(real)
    weights /= np.sum(weights, 1, keepdims=True)
    return _weighted(x, axis, np.minimum(places, length - 1), weights, inside)


def cubic_weights(share: Any, a: float = -0.75) -> tuple[Any, Any, Any, Any]:
    """Of the elements at -1, 0, 1 and 2, for a place at ``share`` between 0 and 1."""
    return (
        _far(share + 1, a),
        _near(share, a),
        _near(1 - share, a),
        _far(2 - share, a),
    )


def _near(distance, a):
    """Keys' cubic up to a distance of 1.

    References:
      Keys, `Cubic Convolution Interpolation for Digital Image Processing
      <https://doi.org/10.1109/TASSP.1981.1163711>`_, 1981.
    """
    return ((a + 2) * distance - (a + 3)) * distance * distance + 1


def _far(distance, a):
    """From 1 to 2."""
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a


def _triangle(distance):
    return np.maximum(1 - distance, 0)


def _cubic(distance):
    far = np.where(distance < 2, _far(distance, -0.5), 0)
    return np.where(distance < 1, _near(distance, -0.5), far)


def _lanczos(distance):
    return np.where(distance < 3, np.sinc(distance) * np.sinc(distance / 3), 0)


_FILTERS = {"linear": (1, _triangle), "cubic": (2, _cubic), "lanczos": (3, _lanczos)}


def _step(length, size, scale, align_corners, real):
    """The distance between two new elements, in old ones."""
    if align_corners:
        return real(length - 1) / real(size - 1) if size > 1 else real(0)
    if scale is not None and scale > 0:
        return real(1 / scale)
    return real(length) / real(size)


def _places(length, size, scale, align_corners, real):
    """Where the new elements lie among the old ones."""
    step = _step(length, size, scale, align_corners, real)
    i = np.arange(size, dtype=real)
    return step * i if align_corners else step * (i + real(0.5)) - real(0.5)


def _taken(x, axis, size, i, scale):
    length = x.shape[axis]
    if size % length == 0 and scale in (None, size / length):
        return jnp.repeat(x, size // length, axis)
    step = _step(length, size, scale, False, np.float32)
    places = np.minimum(np.floor(i * step).astype(int), length - 1)
    return jnp.take(x, places, axis)


def _weighted(x, axis, places, weights, inside=None):
    """The sum over the second axis of the tables, whose first one becomes ``axis``."""
    ndim = x.ndim + 1
    terms = jnp.take(x, places, axis) * along(weights.astype(x.dtype), axis, ndim)
    if inside is not None:
        terms = jnp.where(along(inside, axis, ndim), terms, 0)
    return jnp.sum(terms, axis + 1)

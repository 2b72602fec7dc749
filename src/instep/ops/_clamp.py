"""Bounds, and the larger or smaller of two, with PyTorch's derivatives at ties.

Shapes and dtypes: arrays of shapes that broadcast, and numbers, of any dtype but complex; the
result has the dtype that they promote to.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ._elementwise import binary, computed


@jax.custom_jvp
def _maximum(x, y):
    return jnp.maximum(x, y)


@_maximum.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    tie = x == y
    by_x = jnp.where(x < y, 0, jnp.where(tie, dx / 2, dx))
    by_y = jnp.where(x > y, 0, jnp.where(tie, dy / 2, dy))
    return _maximum(x, y), by_x + by_y


@jax.custom_jvp
def _minimum(x, y):
    return jnp.minimum(x, y)


@_minimum.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    tie = x == y
    by_x = jnp.where(x > y, 0, jnp.where(tie, dx / 2, dx))
    by_y = jnp.where(x < y, 0, jnp.where(tie, dy / 2, dy))
    return _minimum(x, y), by_x + by_y


maximum = binary("maximum", _maximum)  # a tie, and NaN, shared as PyTorch shares them
minimum = binary("minimum", _minimum)


def fmax(input: Any, other: Any) -> jax.Array:
    """``torch.fmax``: the larger that is not NaN; the slope of a tie is ``input``'s."""
    return computed(lambda x, y: jnp.where((x >= y) | _is_nan(y), x, y), input, other)


def fmin(input: Any, other: Any) -> jax.Array:
    """``torch.fmin``: the smaller that is not NaN; the slope of a tie is ``input``'s."""
    return computed(lambda x, y: jnp.where((x <= y) | _is_nan(y), x, y), input, other)


def clamp(input: Any, min: Any = None, max: Any = None) -> jax.Array:
    """``torch.clamp``: at a bound the slope is ``input``'s; where ``min > max``, ``max``'s.

    Args:
      input: any shape and dtype.
      min, max: numbers or arrays that broadcast; None: no bound.

    Raises:
      ValueError: both are None.
    """
    if min is None and max is None:
        raise ValueError("clamp needs min, max or both; both are None.")
    if max is None:
        return clamp_min(input, min)
    if min is None:
        return clamp_max(input, max)
    return computed(_clamp, input, min, max)


def clamp_min(input: Any, min: Any) -> jax.Array:
    """``torch.clamp_min``: the larger of ``input`` and ``min``; at a tie the slope is 1.

    ``jnp.maximum`` has a slope of 1/2 there.

    Args:
      input: any shape and dtype.
      min: a number, or an array that broadcasts.
    """
    return computed(_at_least, input, min)


def clamp_max(input: Any, max: Any) -> jax.Array:
    """``torch.clamp_max``: the smaller of ``input`` and ``max``; at a tie the slope is 1.

    Args:
      input: any shape and dtype.
      max: a number, or an array that broadcasts.
    """
    return computed(_at_most, input, max)


@jax.custom_jvp
def _at_least(x, low):
    return jnp.maximum(x, low)


@_at_least.defjvp
def _(primals, tangents):
    (x, low), (dx, dlow) = primals, tangents
    return _at_least(x, low), jnp.where(x >= low, dx, 0) + jnp.where(x < low, dlow, 0)


@jax.custom_jvp
def _at_most(x, high):
    return jnp.minimum(x, high)


@_at_most.defjvp
def _(primals, tangents):
    (x, high), (dx, dhigh) = primals, tangents
    return _at_most(x, high), jnp.where(x <= high, dx, 0) + jnp.where(x > high, dhigh, 0)


@jax.custom_jvp
def _clamp(x, low, high):
    return jnp.minimum(jnp.maximum(x, low), high)


@_clamp.defjvp
def _(primals, tangents):
    (x, low, high), (dx, dlow, dhigh) = primals, tangents
    by_x = jnp.where((x >= low) & (x <= high), dx, 0)
    by_low = jnp.where((low < high) & (x < low), dlow, 0)
    by_high = jnp.where((x > high) | (high < low), dhigh, 0)
    return _clamp(x, low, high), by_x + by_low + by_high


def _is_nan(x):
    return x != x

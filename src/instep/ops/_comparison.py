"""Comparisons, logic, bits, and what depends on them.

Shapes and dtypes: arrays of any dtype whose shapes broadcast, and numbers. Comparisons, logic
and tests give bool; bits, ``heaviside`` and choices the dtype that the operands promote to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._elementwise import alike, computed
from ._promotion import promote


def _comparison(name: str, function: Callable[..., jax.Array]):
    def call(input: Any, other: Any) -> jax.Array:
        return function(*promote(input, other))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``torch.{name}``, in the dtype that the two promote to."
    return call


eq = _comparison("eq", jnp.equal)
ne = _comparison("ne", jnp.not_equal)
lt = _comparison("lt", jnp.less)
le = _comparison("le", jnp.less_equal)
gt = _comparison("gt", jnp.greater)
ge = _comparison("ge", jnp.greater_equal)


def _logical(name: str, function: Callable[..., jax.Array]):
    def call(input: Any, other: Any) -> jax.Array:
        return function(*alike(bool, input, other))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``torch.{name}``: a number is true unless it is 0."
    return call


logical_and = _logical("logical_and", jnp.logical_and)
logical_or = _logical("logical_or", jnp.logical_or)
logical_xor = _logical("logical_xor", jnp.logical_xor)


def logical_not(input: jax.Array) -> jax.Array:
    """``torch.logical_not``."""
    return jnp.logical_not(input.astype(bool))


def _bitwise(name: str, function: Callable[..., jax.Array]):
    def call(input: Any, other: Any) -> jax.Array:
        return function(*promote(input, other))

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``torch.{name}``, of integers or booleans."
    return call


bitwise_and = _bitwise("bitwise_and", jnp.bitwise_and)
bitwise_or = _bitwise("bitwise_or", jnp.bitwise_or)
bitwise_xor = _bitwise("bitwise_xor", jnp.bitwise_xor)
bitwise_left_shift = _bitwise("bitwise_left_shift", jnp.left_shift)
bitwise_right_shift = _bitwise("bitwise_right_shift", jnp.right_shift)


def bitwise_not(input: jax.Array) -> jax.Array:
    """``torch.bitwise_not``."""
    return jnp.bitwise_not(input)


def _floating_test(name: str, function: Callable[..., jax.Array], of_integers: bool):
    def call(input: jax.Array) -> jax.Array:
        if not jnp.issubdtype(input.dtype, jnp.inexact):
            return jnp.full(input.shape, of_integers)
        return function(input)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``torch.{name}``."
    return call


isnan = _floating_test("isnan", jnp.isnan, False)
isinf = _floating_test("isinf", jnp.isinf, False)
isfinite = _floating_test("isfinite", jnp.isfinite, True)
isposinf = _floating_test("isposinf", jnp.isposinf, False)
isneginf = _floating_test("isneginf", jnp.isneginf, False)


def isreal(input: jax.Array) -> jax.Array:
    """``torch.isreal``."""
    return jnp.isreal(input)


def signbit(input: jax.Array) -> jax.Array:
    """``torch.signbit``: true for negative numbers, and for -0.0."""
    if jnp.issubdtype(input.dtype, jnp.floating):
        return jnp.signbit(input)
    return jnp.zeros(input.shape, bool) if input.dtype == bool else input < 0


def isclose(
    input: jax.Array,
    other: jax.Array,
    rtol: float = 1e-5,
    atol: float = 1e-8,
    equal_nan: bool = False,
) -> jax.Array:
    """``torch.isclose``: ``|input - other| <= atol + rtol * |other|``, or equal."""
    x, y = promote(input, other)
    close = x == y
    if equal_nan and jnp.issubdtype(x.dtype, jnp.inexact):
        close = close | (jnp.isnan(x) & jnp.isnan(y))
    if rtol == 0 and atol == 0:
        return close
    x, y = promote(x, y, floating=True)
    difference = jnp.abs(x - y)
    return close | (jnp.isfinite(difference) & (difference <= atol + jnp.abs(rtol * y)))


def where(condition: jax.Array, input: Any, other: Any) -> jax.Array:
    """``torch.where`` of three: the slope by the one not taken is 0.

    Args:
      condition: boolean.
      input, other: arrays that broadcast, or numbers.
    """
    x, y = promote(input, other)
    return _where(condition, x, y)


def masked_fill(input: jax.Array, mask: jax.Array, value: Any) -> jax.Array:
    """``torch.Tensor.masked_fill``: ``value`` where ``mask``, in the dtype of ``input``.

    Args:
      input: any shape and dtype.
      mask: boolean, of a shape that broadcasts with it.
      value: a number, or an array without axes.
    """
    x, v = alike(input.dtype, input, value)
    return _where(mask, v, x)


def _where(condition, x, y):
    ndim = max(condition.ndim, x.ndim)
    condition, x, y = (a.reshape((1,) * (ndim - a.ndim) + a.shape) for a in (condition, x, y))
    return jnp.where(condition.astype(bool), x, y)


def heaviside(input: jax.Array, values: jax.Array) -> jax.Array:
    """``torch.heaviside``: 0 below 0, ``values`` at 0, 1 above; its slope is 0."""

    def step(x, v):
        x, v = jnp.broadcast_arrays(*map(jax.lax.stop_gradient, (x, v)))
        return jnp.where(x == 0, v, (x > 0).astype(x.dtype))

    return computed(step, input, values)

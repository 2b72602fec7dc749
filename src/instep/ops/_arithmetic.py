"""Arithmetic of two or three operands, with PyTorch's promotion and derivatives.

Shapes and dtypes: arrays of shapes that broadcast, and numbers; the result has the dtype that
they promote to, of ``div``, ``atan2`` and ``copysign`` a floating one.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._elementwise import alike, binary, computed, computing, sloped
from ._promotion import result_type


def add(input: Any, other: Any, alpha: Any = 1) -> jax.Array:
    """``torch.add``: ``input + alpha * other``."""
    if alpha == 1:
        return computed(jnp.add, input, other)
    return computed(lambda x, y, a: x + a * y, input, other, alpha)


def sub(input: Any, other: Any, alpha: Any = 1) -> jax.Array:
    """``torch.sub``: ``input - alpha * other``."""
    if alpha == 1:
        return computed(jnp.subtract, input, other)
    return computed(lambda x, y, a: x - a * y, input, other, alpha)


def rsub(input: Any, other: Any, alpha: Any = 1) -> jax.Array:
    """``torch.rsub``: ``other - alpha * input``."""
    return sub(other, input, alpha)


mul = binary("mul", jnp.multiply, round_numbers=False)


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> jax.Array:
    """``torch.div``.

    Args:
      input, other: arrays and numbers; without rounding, integers become floating.
      rounding_mode: None, ``"trunc"`` (towards 0) or ``"floor"``, whose slope is 0.

    Raises:
      ValueError: another ``rounding_mode``.
    """
    if rounding_mode is None:
        return computed(_quotient, input, other, floating=True, round_numbers=False)
    if rounding_mode == "trunc":
        return computed(_truncated, input, other)
    if rounding_mode == "floor":
        return computed(_floored, input, other)
    raise ValueError(f"{rounding_mode=} must be None, 'trunc' or 'floor'.")


def floor_divide(input: Any, other: Any) -> jax.Array:
    """``torch.floor_divide``: ``div`` with ``rounding_mode="floor"``."""
    return div(input, other, rounding_mode="floor")


@jax.custom_jvp
def _quotient(x, y):
    return x / y


@_quotient.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    q = _quotient(x, y)
    return q, dx / y - dy * _quotient(q, y)


def _truncated(x, y):
    return lax.stop_gradient(
        jnp.trunc(x / y) if jnp.issubdtype(x.dtype, jnp.inexact) else _integer_quotient(x, y)
    )


def _integer_quotient(x, y):
    x, y = jnp.broadcast_arrays(x, y)
    return lax.div(x, y)


def _floored(x, y):
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.floor_divide(x, y)
    x, y = map(lax.stop_gradient, jnp.broadcast_arrays(x, y))
    rest = lax.rem(x, y)
    q = (x - rest) / y
    q = jnp.where((rest != 0) & ((y < 0) != (rest < 0)), q - 1, q)
    floor = jnp.floor(q)
    floor = jnp.where(q - floor > 0.5, floor + 1, floor)
    floor = jnp.where(q != 0, floor, jnp.copysign(0, x / y))
    return jnp.where(y == 0, x / y, floor)


@jax.custom_jvp
def _remainder(x, y):
    return jnp.remainder(x, y)


@_remainder.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return _remainder(x, y), dx - dy * _floored(x, y)


@jax.custom_jvp
def _fmod(x, y):
    return jnp.fmod(x, y)


@_fmod.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    return _fmod(x, y), dx - dy * _truncated(x, y)


remainder = binary("remainder", _remainder)
fmod = binary("fmod", _fmod)


def pow(input: Any, exponent: Any) -> jax.Array:
    """``torch.pow``, with slopes of 0 where both derivatives have 0 as a factor.

    The slope by a base of 0 is 0 if the exponent is, and that by the exponent is 0 if the base
    is and the exponent is not negative.

    Args:
      input, exponent: arrays, or one of them a number.
    """
    if isinstance(exponent, int | float) and not isinstance(exponent, bool):
        dtype = result_type(input, exponent)
        if jnp.issubdtype(dtype, jnp.inexact):
            x = jnp.asarray(input).astype(computing(dtype))
            if dtype != x.dtype:
                exponent = float(np.asarray(exponent).astype(dtype))
            return _constant_power(x, exponent).astype(dtype)
    return computed(_power, input, exponent)


def float_power(input: Any, exponent: Any) -> jax.Array:
    """``torch.float_power``: ``pow`` in float64, or complex128."""
    dtype = result_type(input, exponent)
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    dtype = jax.dtypes.canonicalize_dtype("complex128" if is_complex else "float64")
    return _power(*alike(dtype, input, exponent))


def _constant_power(x, exponent):
    if exponent == 0.5:
        return jnp.sqrt(x)
    if math.isfinite(exponent) and exponent == int(exponent) and -8 <= exponent <= 8:
        return lax.integer_pow(x, int(exponent))
    return _power(*alike(x.dtype, x, exponent))


@jax.custom_jvp
def _power(x, exponent):
    return jnp.power(x, exponent)


@_power.defjvp
def _(primals, tangents):
    (x, e), (dx, de) = primals, tangents
    y = _power(x, e)
    by_base = sloped(dx, e * _power(x, e - 1), e == 0)
    flat = (x == 0) & (jnp.real(e) >= 0)
    by_exponent = jnp.where(flat, 0, y * jnp.log(jnp.where(flat, 1, x)))
    return y, by_base + de * by_exponent


def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> jax.Array:
    """``torch.addcmul``: ``input + value * tensor1 * tensor2``."""
    return computed(lambda x, y, z: x + value * y * z, input, tensor1, tensor2)


def addcdiv(input: Any, tensor1: Any, tensor2: Any, *, value: Any = 1) -> jax.Array:
    """``torch.addcdiv``: ``input + value * tensor1 / tensor2``."""
    return computed(lambda x, y, z: x + _quotient(value * y, z), input, tensor1, tensor2)


def lerp(input: Any, end: Any, weight: Any) -> jax.Array:
    """``torch.lerp``: from ``input`` (``weight`` of 0) to ``end`` (1), both exact."""

    def between(x, y, w):
        return jnp.where(jnp.abs(w) < 0.5, x + w * (y - x), y - (y - x) * (1 - w))

    return computed(between, input, end, weight, round_numbers=False)


@jax.custom_jvp
def _atan2(y, x):
    return jnp.arctan2(y, x)


@_atan2.defjvp
def _(primals, tangents):
    (y, x), (dy, dx) = primals, tangents
    size = x * x + y * y
    inverse = jnp.where(size == 0, 0, 1 / jnp.where(size == 0, 1, size))
    return _atan2(y, x), dy * x * inverse - dx * y * inverse


atan2 = binary("atan2", _atan2, floating=True)  # the slope at the origin is 0


@jax.custom_jvp
def _hypot(x, y):
    return jnp.hypot(x, y)


@_hypot.defjvp
def _(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    r = _hypot(x, y)
    return r, dx * (x / r) + dy * (y / r)


hypot = binary("hypot", _hypot)


@jax.custom_jvp
def _copysign(x, y):
    return jnp.copysign(x, y)


@_copysign.defjvp
def _(primals, tangents):
    (x, y), (dx, _) = primals, tangents
    z = _copysign(x, y)
    return z, dx * jnp.where(x == 0, 0, z / jnp.where(x == 0, 1, x))


copysign = binary("copysign", _copysign, floating=True)
gcd = binary("gcd", jnp.gcd)
lcm = binary("lcm", jnp.lcm)


@jax.custom_jvp
def _nextafter(x, y):
    return jnp.nextafter(x, y)


@_nextafter.defjvp
def _(primals, tangents):
    (x, y), (dx, _) = primals, tangents
    return _nextafter(x, y), jnp.where(x == y, 0, dx)


nextafter = binary("nextafter", _nextafter)

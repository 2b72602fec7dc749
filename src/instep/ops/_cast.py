"""Casts with PyTorch's rules, and complex numbers and their parts.

Shapes and dtypes: any shape; ``dtype`` is one of NumPy or JAX. The parts of complex64 are
float32, those of complex128 float64.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._promotion import as_floating


def cast(input: jax.Array, dtype: Any) -> jax.Array:
    """``Tensor.to(dtype)``.

    A complex number loses its imaginary part; a number becomes true unless it is 0. A float
    becomes an integer of 8 or 16 bits modulo 2^8 or 2^16. One out of the range of a wider
    integer, or NaN, is not defined in PyTorch; here it is the nearest integer, or 0.

    Args:
      input: any dtype.
      dtype: while x64 is off, 64 bits mean 32.
    """
    input, dtype = jnp.asarray(input), jax.dtypes.canonicalize_dtype(dtype)
    from_complex = jnp.issubdtype(input.dtype, jnp.complexfloating)
    if jnp.issubdtype(dtype, jnp.bool_):
        return input != jnp.zeros((), input.dtype)
    if from_complex and not jnp.issubdtype(dtype, jnp.complexfloating):
        input = jnp.real(input)
    to_integer = jnp.issubdtype(input.dtype, jnp.floating) and jnp.issubdtype(
        dtype, jnp.integer
    )
    if to_integer and jnp.iinfo(dtype).bits < 32:
        input = input.astype(jax.dtypes.canonicalize_dtype("int64"))
    return input.astype(dtype)


def view_dtype(input: jax.Array, dtype: Any) -> jax.Array:
    """``Tensor.view(dtype)``: the same bits, the last axis in other units.

    Raises:
      NotImplementedError: complex, boolean, or more bits than JAX has while x64 is off.
    """
    old, new = jnp.dtype(input.dtype), jnp.dtype(dtype)
    refused = [t for t in (old, new) if t.kind in "cb" or jax.dtypes.canonicalize_dtype(t) != t]
    if refused:
        raise NotImplementedError(
            f"view of {old} as {new}: {refused[0]} has no bits to view here. Use "
            f"view_as_real, or a cast."
        )
    if old.itemsize == new.itemsize:
        return lax.bitcast_convert_type(input, new)
    if new.itemsize < old.itemsize:
        parts = lax.bitcast_convert_type(input, new)
        return jnp.reshape(parts, (*input.shape[:-1], -1))
    units = jnp.reshape(input, (*input.shape[:-1], -1, new.itemsize // old.itemsize))
    return lax.bitcast_convert_type(units, new)


def view_as_complex(input: jax.Array) -> jax.Array:
    """``torch.view_as_complex``: real and imaginary parts on a last axis of length 2."""
    return lax.complex(input[..., 0], input[..., 1])


def view_as_real(input: jax.Array) -> jax.Array:
    """``torch.view_as_real``: real and imaginary parts on a new last axis."""
    return jnp.stack([jnp.real(input), jnp.imag(input)], -1)


def polar(abs: jax.Array, angle: jax.Array) -> jax.Array:
    """``torch.polar``: the complex number of a length and an angle, of one dtype."""
    shape = jnp.broadcast_shapes(abs.shape, angle.shape)
    abs, angle = jnp.broadcast_to(abs, shape), jnp.broadcast_to(angle, shape)
    return lax.complex(abs * jnp.cos(angle), abs * jnp.sin(angle))


def angle(input: jax.Array) -> jax.Array:
    """``torch.angle``: of a real number 0 or pi, NaN of NaN; integers give floats.

    The gradient of a real input is 0, and so is that of a complex 0.
    """
    if not jnp.issubdtype(input.dtype, jnp.complexfloating):
        x = input.astype(as_floating(input.dtype))
        half_turn = jnp.where(x < 0, jnp.full_like(x, math.pi), jnp.zeros_like(x))
        return lax.stop_gradient(jnp.where(jnp.isnan(x), x, half_turn))
    at_zero = input == 0
    safe = jnp.where(at_zero, jnp.ones_like(input), input)
    return jnp.where(at_zero, lax.stop_gradient(jnp.angle(input)), jnp.angle(safe))

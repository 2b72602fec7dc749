"""How a function of single elements is made one of PyTorch's: operands alike, then computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import wide
from ._promotion import as_floating, result_type


def computed(
    function: Callable[..., jax.Array],
    *operands: Any,
    floating: bool = False,
    round_numbers: bool = True,
) -> jax.Array:
    """``function`` of the operands, promoted as PyTorch promotes them.

    Half precision is computed in float32 and rounded once.

    Args:
      function: of arrays of one dtype and one rank.
      operands: arrays and Python numbers.
      floating: integers and booleans become the default floating dtype.
      round_numbers: to half precision, too; PyTorch multiplies and divides by whole ones.

    Returns:
      An array of the promoted dtype.
    """
    dtype = result_type(*operands)
    if floating:
        dtype = as_floating(dtype)
    if round_numbers:
        operands = tuple(alike(dtype, *operands))
    return function(*alike(computing(dtype), *operands)).astype(dtype)


def computing(dtype: Any) -> np.dtype:
    """The dtype to compute in: at least float32 for a floating one, else ``dtype``."""
    dtype = jnp.dtype(dtype)
    return wide(dtype) if jnp.issubdtype(dtype, jnp.inexact) else dtype


def alike(dtype: Any, *operands: Any) -> list[jax.Array]:
    """The operands as arrays of ``dtype`` and of one rank."""
    arrays = [
        x.astype(dtype) if isinstance(x, jax.Array) else jnp.asarray(x, dtype) for x in operands
    ]
    ndim = max(x.ndim for x in arrays)
    return [x.reshape((1,) * (ndim - x.ndim) + x.shape) for x in arrays]


def unary(name: str, function: Callable[..., jax.Array], floating: bool = True):
    """``torch.<name>``, a function of one array."""

    def call(input: jax.Array) -> jax.Array:
        return computed(function, input, floating=floating)

    return _named(call, name)


def binary(
    name: str,
    function: Callable[..., jax.Array],
    floating: bool = False,
    round_numbers: bool = True,
):
    """``torch.<name>``, a function of two arrays, or of an array and a number."""

    def call(input: Any, other: Any) -> jax.Array:
        return computed(function, input, other, floating=floating, round_numbers=round_numbers)

    return _named(call, name)


def _named(call, name):
    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"``torch.{name}``."
    return call


def sloped(dx: Any, slope: Any, none: Any) -> Any:
    """``dx * slope``, and 0 where ``none``, whatever both are there; transposed as well."""
    return jnp.where(none, 0, dx) * jnp.where(none, 0, slope)

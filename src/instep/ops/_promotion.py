"""PyTorch's dtype promotion, and operands made alike."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


_default_float: contextvars.ContextVar[Any] = contextvars.ContextVar(
    "float", default=np.float32
)


@contextlib.contextmanager
def default_float(dtype: Any) -> Iterator[None]:
    """Within: the dtype of a Python float and of a function of integers.

    The counterpart of ``torch.set_default_dtype``; without it, float32.
    """
    token = _default_float.set(np.dtype(dtype))
    try:
        yield
    finally:
        _default_float.reset(token)


def result_type(*operands: Any) -> np.dtype:
    """``torch.result_type`` of any number of operands.

    Arrays with axes decide. An array without axes counts only if it is of a higher kind
    (boolean, integer, floating, complex) than all of those, and a Python number only if it is
    of a higher kind than all arrays. JAX counts an array without axes as any other.

    Args:
      operands: arrays and Python numbers.

    Returns:
      The dtype; that of a wider kind that JAX does not have while x64 is off is the narrow one.
    """
    ranks: list[list[Any]] = [[], [], []]  # with axes, without, Python numbers
    for x in operands:
        if isinstance(x, bool | int | float | complex):
            ranks[2].append(_of_number(x))
        else:
            ranks[0 if np.ndim(x) else 1].append(jnp.result_type(x))
    with jax.numpy_dtype_promotion("standard"):
        first, *lower = (functools.reduce(jnp.promote_types, r) for r in ranks if r)
        return jax.dtypes.canonicalize_dtype(functools.reduce(_higher_kind, lower, first))


def promote(*operands: Any, floating: bool = False) -> list[jax.Array]:
    """The operands as arrays of one dtype (``result_type``) and one rank, to be broadcast.

    Args:
      operands: arrays and Python numbers.
      floating: integers and booleans become the default floating dtype.
    """
    dtype = result_type(*operands)
    if floating:
        dtype = as_floating(dtype)
    arrays = [jnp.asarray(x).astype(dtype) for x in operands]
    ndim = max(x.ndim for x in arrays)
    return [x.reshape((1,) * (ndim - x.ndim) + x.shape) for x in arrays]


def as_floating(dtype: Any) -> np.dtype:
    """``dtype``, or for integers and booleans the default floating dtype."""
    dtype = jnp.dtype(dtype)
    if jnp.issubdtype(dtype, jnp.inexact):
        return dtype
    return jax.dtypes.canonicalize_dtype(_default_float.get())


def _of_number(x: bool | int | float | complex) -> np.dtype:
    if isinstance(x, bool):
        return np.dtype(bool)
    if isinstance(x, int):
        return np.dtype(np.int64)
    real = jnp.dtype(_default_float.get())
    if isinstance(x, float):
        return real
    return np.dtype(np.complex128 if real == np.float64 else np.complex64)


def _higher_kind(dtype, lower):
    """``dtype``, unless ``lower``, which counts for less, is of a higher kind."""
    if _kind(lower) <= _kind(dtype):
        return dtype
    if _kind(lower) == COMPLEX and _kind(dtype) == FLOATING:
        return np.dtype(np.complex128 if dtype == np.float64 else np.complex64)
    return lower


BOOLEAN, INTEGER, FLOATING, COMPLEX = range(4)


def _kind(dtype):
    kinds = jnp.integer, jnp.floating, jnp.complexfloating
    return sum(i * jnp.issubdtype(dtype, kind) for i, kind in enumerate(kinds, start=1))

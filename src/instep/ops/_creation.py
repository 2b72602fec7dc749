"""New tensors: constants, ranges and patterns, with PyTorch's default dtypes.

Shapes and dtypes: the result has shape ``size`` and the NumPy ``dtype``, 64 bits of which mean
32 while x64 is off. Classes are integers of any shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._promotion import as_floating, result_type
from ._view import expand


def full(size: Sequence[int], fill_value: Any, *, dtype: Any = None) -> jax.Array:
    """``torch.full``: without ``dtype``, that of the kind of ``fill_value``."""
    dtype = result_type(fill_value) if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    return jnp.full(tuple(size), jnp.asarray(fill_value).astype(dtype))


def zeros(size: Sequence[int], *, dtype: Any = None) -> jax.Array:
    """``torch.zeros``; also ``torch.empty``, whose elements PyTorch leaves open."""
    return full(size, 0, dtype=as_floating(bool) if dtype is None else dtype)


def ones(size: Sequence[int], *, dtype: Any = None) -> jax.Array:
    """``torch.ones``."""
    return full(size, 1, dtype=as_floating(bool) if dtype is None else dtype)


def arange(start: Any, end: Any, step: Any = 1, *, dtype: Any = None) -> jax.Array:
    """``torch.arange``.

    Args:
      start, end, step: Python numbers; ``end`` is not reached.
      dtype: without it int64 if all three are integers, else the default floating dtype.
    """
    numbers = start, end, step
    if dtype is None:
        whole = all(isinstance(x, int) for x in numbers)
        dtype = result_type(0) if whole else as_floating(bool)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        numbers = start, end, step = [int(x) for x in numbers]
    if all(isinstance(x, int) for x in numbers):
        return jnp.arange(len(range(*numbers))).astype(dtype) * jnp.asarray(
            step, dtype
        ) + jnp.asarray(start, dtype)
    count = math.ceil((end - start) / step)
    return jnp.asarray(start + step * np.arange(count, dtype=np.float64), dtype)


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None) -> jax.Array:
    """``torch.linspace``: ``start`` to ``end``, both included.

    Args:
      start, end: numbers, or arrays without axes.
      steps: how many.
      dtype: without it the default floating dtype, or complex if an end is.
    """
    ends = [jnp.asarray(x) for x in (start, end)]
    if dtype is None:
        dtype = as_floating(bool)
        if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in ends):
            dtype = np.result_type(dtype, np.complex64)
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    exact = as_floating(dtype)
    if jnp.issubdtype(dtype, jnp.integer):
        exact = jax.dtypes.canonicalize_dtype("float64")
        ends = [x.astype(dtype) for x in ends]
    first, last = (x.astype(exact) for x in ends)
    if steps == 1:
        return first.reshape(1).astype(dtype)
    i = jnp.arange(steps)
    step = (last - first) / (steps - 1)
    first, last, step = (expand(x, (steps,)) for x in (first, last, step))
    from_first = first + step * i.astype(exact)
    from_last = last - step * (steps - 1 - i).astype(exact)
    return jnp.where(i < steps // 2, from_first, from_last).astype(dtype)


def logspace(
    start: Any, end: Any, steps: int, base: float = 10.0, *, dtype: Any = None
) -> jax.Array:
    """``torch.logspace``: ``base`` to the powers of ``linspace``."""
    if dtype is not None and jnp.issubdtype(dtype, jnp.integer):
        powers = linspace(start, end, steps, dtype=jax.dtypes.canonicalize_dtype("float64"))
    else:
        powers = linspace(start, end, steps, dtype=dtype)
    values = jnp.asarray(base, powers.dtype) ** powers
    return values if dtype is None else values.astype(jax.dtypes.canonicalize_dtype(dtype))


def eye(n: int, m: int | None = None, *, dtype: Any = None) -> jax.Array:
    """``torch.eye``."""
    dtype = as_floating(bool) if dtype is None else jax.dtypes.canonicalize_dtype(dtype)
    return jnp.eye(n, m, dtype=dtype)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = np.int64) -> jax.Array:
    """``torch.tril_indices``: rows and columns of a lower triangle, shape ``(2, n)``."""
    found = np.tril_indices(row, offset, col)
    return jnp.asarray(np.stack(found), jax.dtypes.canonicalize_dtype(dtype))


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = np.int64) -> jax.Array:
    """``torch.triu_indices``: rows and columns of an upper triangle, shape ``(2, n)``."""
    found = np.triu_indices(row, offset, col)
    return jnp.asarray(np.stack(found), jax.dtypes.canonicalize_dtype(dtype))


def one_hot(input: jax.Array, num_classes: int = -1) -> jax.Array:
    """``torch.nn.functional.one_hot``: 1 at the class on a new last axis, int64.

    A class that is not there gives zeros, where PyTorch raises.

    Raises:
      NotImplementedError: ``num_classes`` is -1, which means one more than the largest.
    """
    if num_classes < 0:
        raise NotImplementedError(
            f"num_classes is {num_classes}: the shape would depend on the data. Give a number."
        )
    classes = jnp.arange(num_classes, dtype=input.dtype)
    shape = (*input.shape, num_classes)
    hot = jnp.broadcast_to(input[..., None], shape) == jnp.broadcast_to(classes, shape)
    return hot.astype(result_type(0))

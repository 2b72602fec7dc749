"""Axes as PyTorch names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax


def axes_of(input: jax.Array, dim: int | Sequence[int] | None) -> tuple[int, ...]:
    """The axes of a reduction; None and no axes mean all. An array without axes has none."""
    if input.ndim == 0:
        return ()
    if dim is None or (not isinstance(dim, int) and len(dim) == 0):
        return tuple(range(input.ndim))
    dims = (dim,) if isinstance(dim, int) else dim
    return tuple(d % input.ndim for d in dims)


def on_axis(input: jax.Array, dim: int | None) -> tuple[jax.Array, int]:
    """An array with at least one axis, and the axis ``dim`` of it.

    With ``dim`` None it is the flattened array.
    """
    if dim is None:
        return input.reshape(-1), 0
    if input.ndim == 0:
        return input.reshape(1), 0
    return input, dim % input.ndim


def integers() -> Any:
    """The dtype of indices and counts: int64, or int32 while x64 is off."""
    return jax.dtypes.canonicalize_dtype("int64")

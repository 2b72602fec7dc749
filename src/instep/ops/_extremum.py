"""The largest and the smallest, and where they are, with PyTorch's derivatives at ties.

Shapes and dtypes: any shape, any dtype but complex; indices are int64, int32 while x64 is off.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._axes import axes_of, integers, on_axis
from ._clamp import maximum, minimum
from ._reduction import Dim


def amax(input: jax.Array, dim: Dim = (), keepdim: bool = False) -> jax.Array:
    """``torch.amax``: ties share the gradient evenly; NaN is the largest, and has NaN.

    Args:
      input: any dtype but complex.
      dim: axes; none of them means all.
      keepdim: keep the axes, of length 1.
    """
    axes = axes_of(input, dim)
    made = _extremum(input, jnp.max, axes, False)
    return made if keepdim else made.squeeze(axes)


def amin(input: jax.Array, dim: Dim = (), keepdim: bool = False) -> jax.Array:
    """``torch.amin``: as ``amax``, of the smallest."""
    axes = axes_of(input, dim)
    made = _extremum(input, jnp.min, axes, False)
    return made if keepdim else made.squeeze(axes)


def aminmax(
    input: jax.Array, *, dim: int | None = None, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    """``torch.aminmax``: ``amin`` and ``amax``."""
    dims = () if dim is None else dim
    return amin(input, dims, keepdim), amax(input, dims, keepdim)


def max(input: jax.Array, dim: Any = None, keepdim: bool = False) -> Any:
    """``torch.max``, in its three forms.

    Args:
      input: any dtype but complex.
      dim: None: the largest of all, whose ties (and NaN) share the gradient; an axis: the
        largest along it, and its first index, which has all of the gradient; an array: see
        ``maximum``.
      keepdim: keep the axis, of length 1.

    Returns:
      An array; for an axis, ``(values, indices)``.
    """
    if isinstance(dim, jax.Array):
        return maximum(input, dim)
    if dim is None:
        return _extremum(input, jnp.max, axes_of(input, None), True).reshape(())
    return _along(input, argmax(input, dim, True), dim, keepdim)


def min(input: jax.Array, dim: Any = None, keepdim: bool = False) -> Any:
    """``torch.min``, in its three forms: as ``max``, of the smallest."""
    if isinstance(dim, jax.Array):
        return minimum(input, dim)
    if dim is None:
        return _extremum(input, jnp.min, axes_of(input, None), True).reshape(())
    return _along(input, argmin(input, dim, True), dim, keepdim)


def argmax(input: jax.Array, dim: int | None = None, keepdim: bool = False) -> jax.Array:
    """``torch.argmax``: the first index among ties; of all elements if ``dim`` is None."""
    return _arg(jnp.argmax, input, dim, keepdim)


def argmin(input: jax.Array, dim: int | None = None, keepdim: bool = False) -> jax.Array:
    """``torch.argmin``: the first index among ties; of all elements if ``dim`` is None."""
    return _arg(jnp.argmin, input, dim, keepdim)


def taken(input: jax.Array, index: jax.Array, dim: int, keepdim: bool) -> jax.Array:
    """``torch.gather`` at one ``index`` along ``dim``, which ``keepdim`` keeps, of length 1."""
    x, axis = on_axis(input, dim)
    values = jnp.take_along_axis(x, index.reshape(_kept(x, axis)), axis)
    return values.reshape(index.shape) if keepdim else values.squeeze(axis)


def _kept(x, axis):
    return (*x.shape[:axis], 1, *x.shape[axis + 1 :])


def _along(input, index, dim, keepdim):
    values = taken(input, index, dim, keepdim)
    return values, index.reshape(values.shape)


def _arg(function, input, dim, keepdim):
    x, axis = on_axis(input, dim)
    index = function(x, axis, keepdims=True).astype(integers())
    if not keepdim:
        return index.squeeze(axis)
    return index.reshape((1,) * input.ndim if dim is None else _kept_shape(input, axis))


def _kept_shape(input, axis):
    return _kept(input, axis) if input.ndim else ()


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _extremum(x, function, axes, share_nan):
    """``axes`` are kept, of length 1."""
    return function(x, axes, keepdims=True)


@_extremum.defjvp
def _(function, axes, share_nan, primals, tangents):
    ([x], [dx]) = primals, tangents
    y = _extremum(x, function, axes, share_nan)
    ties = x == y
    if share_nan:
        ties = ties | ((x != x) & (y != y))
    ties = ties.astype(x.dtype)
    count = jnp.sum(ties, axes, keepdims=True)
    share = jnp.where(count == 0, jnp.nan, ties / count)  # XLA may make 0 of 0 / 0
    return y, jnp.sum(share * dx, axes, keepdims=True)

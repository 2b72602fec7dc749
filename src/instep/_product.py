"""One matrix product, in the form of it that XLA's CPU runs fast.

XLA sums over the last axes of the left operand and the first of the right one. An operand of
more than two axes that is to be summed over at its other end, it copies into another order
first; so it does for the gradient of every weight, which is a sum over the examples, the first
axes of both. With the axes merged it folds the order into the product. And of the two orders of
such a sum, ``x^T g`` and ``(g^T x)^T``, the one with fewer rows is faster. benchmarks/NOTES.md
has the measurements.
"""

from __future__ import annotations

import math
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn
from jax.extend.core.primitives import dot_general_p

from ._computed_once import FEW, computed_once


def has_a_faster_form(eqn: JaxprEqn) -> bool:
    """Whether ``multiply`` makes more of ``eqn`` than itself."""
    if eqn.primitive is not dot_general_p:
        return False
    left, right = (cast(ShapedArray, v.aval) for v in eqn.invars)
    (lefts, rights), batch = eqn.params["dimension_numbers"]
    ends = _end(left.ndim, lefts), _end(right.ndim, rights)
    if any(batch) or not lefts or None in ends or not jnp.issubdtype(left.dtype, jnp.inexact):
        return False
    if not all(isinstance(n, int) and n > 0 for n in (*left.shape, *right.shape)):
        return False
    copies = (left.ndim > 2 and ends[0] == "first") or (right.ndim > 2 and ends[1] == "last")
    rows, columns = left.size // _count(left, lefts), right.size // _count(right, rights)
    return copies or (ends == ("first", "first") and _is_better_turned(rows, columns))


def multiply(left: jax.Array, right: jax.Array, params: dict[str, Any]) -> jax.Array:
    """``jax.lax.dot_general`` of operands and parameters that ``has_a_faster_form`` of."""
    (lefts, rights), _ = params["dimension_numbers"]
    shape = _free(left, lefts) + _free(right, rights)
    x, x_axis = _merged(left, lefts)
    y, y_axis = _merged(right, rights)
    precision, made = params["precision"], params["preferred_element_type"]
    rows, columns = x.shape[1 - x_axis], y.shape[1 - y_axis]
    if x_axis == y_axis == 0 and _is_better_turned(rows, columns):
        turned = precision[::-1] if isinstance(precision, tuple) else precision
        # A call that stays, else XLA sees the transposition and turns the product back.
        return computed_once(_dot(y, x, 0, 0, turned, made)).T.reshape(shape)
    return _dot(x, y, x_axis, y_axis, precision, made).reshape(shape)


def _is_better_turned(rows: int, columns: int) -> bool:
    return rows > columns and rows * columns > FEW


def _dot(x, y, x_axis, y_axis, precision, made):
    axes = ((x_axis,), (y_axis,)), ((), ())
    return lax.dot_general(x, y, axes, precision=precision, preferred_element_type=made)


def _end(ndim: int, axes: tuple[int, ...]) -> str | None:
    """At which end of an operand the axes are that are summed over, in order."""
    n = len(axes)
    ends = {tuple(range(ndim - n, ndim)): "last", tuple(range(n)): "first"}
    return ends.get(tuple(axes)) if n < ndim else None


def _count(x: Any, axes: tuple[int, ...]) -> int:
    return math.prod(x.shape[i] for i in axes)


def _free(x: jax.Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(x.shape) if i not in axes)


def _merged(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, int]:
    """As a matrix, and which of its axes is summed over."""
    summed = _count(x, axes)
    if _end(x.ndim, axes) == "first":
        return x.reshape(summed, -1), 0
    return x.reshape(-1, summed), 1

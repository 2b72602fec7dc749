"""One matrix product, in the form of it that XLA's CPU runs fast.

XLA sums over the last axes of the left operand and the first of the right one. An operand of
more than two axes that is to be summed over at its other end, it copies into another order
first; so it does for the gradient of every weight, which is a sum over the examples, the first
axes of both. With the axes merged it folds the order into the product. And of the two orders of
such a sum, ``x^T g`` and ``(g^T x)^T``, the one with fewer rows is faster, in a batch too: the
gradients of the keys and values of attention. benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn

from ._computed_once import computed_once


FEW = 2**14  # numbers in a result: with no more, the order makes no difference
TIMES = 2  # as many rows as columns in each product of a batch: fewer gain nothing


class Operand(NamedTuple):
    """An operand of a product, by its axes: of the batch, summed over, and the others."""

    shape: tuple[int, ...]
    summed: tuple[int, ...]
    batch: tuple[int, ...]

    @property
    def free(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self.shape)) if i not in self.summed + self.batch)

    @property
    def end(self) -> Literal["first", "last"] | None:
        """Where the axes are that are summed over, those of the batch aside; None: neither."""
        one_matrix = tuple(i for i in range(len(self.shape)) if i not in self.batch)
        if not self.summed or not self.free:
            return None
        if one_matrix == self.summed + self.free:
            return "first"
        return "last" if one_matrix == self.free + self.summed else None

    def size(self, axes: Iterable[int]) -> int:
        return math.prod(self.shape[i] for i in axes)


def has_a_faster_form(eqn: JaxprEqn) -> bool:
    """Whether ``multiply`` makes more of ``eqn`` than itself."""
    left, right = (cast(ShapedArray, v.aval) for v in eqn.invars)
    if not all(isinstance(n, int) and n > 0 for n in (*left.shape, *right.shape)):
        return False
    x, y = _operands(left, right, eqn.params)
    if x.end is None or y.end is None or not jnp.issubdtype(left.dtype, jnp.inexact):
        return False
    copies = (left.ndim > 2 and x.end == "first") or (right.ndim > 2 and y.end == "last")
    return _order(x, y) != "any" or (copies and not x.batch)


def multiply(left: jax.Array, right: jax.Array, params: dict[str, Any]) -> jax.Array:
    """``jax.lax.dot_general`` of operands and parameters that ``has_a_faster_form`` of."""
    x, y = _operands(left, right, params)
    shape = [of.shape[i] for of, axes in ((x, x.batch + x.free), (y, y.free)) for i in axes]
    precision, order = params["precision"], _order(x, y)
    if order == "turned":
        left, x, right, y = right, y, left, x
        precision = precision[::-1] if isinstance(precision, tuple) else precision
    batch = tuple(range(len(x.batch)))
    x_axis, y_axis = (len(batch) + (of.end == "last") for of in (x, y))
    product = lax.dot_general(
        _matrices(left, x),
        _matrices(right, y),
        (((x_axis,), (y_axis,)), (batch, batch)),
        precision,
        params["preferred_element_type"],
    )
    # A call that stays, else XLA turns the product, or turns it back.
    product = product if order == "any" else computed_once(product)
    return (product.mT if order == "turned" else product).reshape(shape)


def _operands(left: Any, right: Any, params: dict[str, Any]) -> tuple[Operand, Operand]:
    (lefts, rights), (left_batch, right_batch) = params["dimension_numbers"]
    return (
        Operand(left.shape, tuple(lefts), tuple(left_batch)),
        Operand(right.shape, tuple(rights), tuple(right_batch)),
    )


def _order(x: Operand, y: Operand) -> Literal["kept", "turned", "any"]:
    """Whether the operands are to be turned to have fewer rows, or kept from being turned."""
    rows, columns = x.size(x.free), y.size(y.free)
    few = x.size(x.batch) * rows * columns <= FEW
    if few or (x.end, y.end) != ("first", "first"):
        return "any"
    if not x.batch:
        return "turned" if rows > columns else "any"
    if max(rows, columns) < TIMES * min(rows, columns):
        return "any"
    return "turned" if rows > columns else "kept"


def _matrices(array: jax.Array, of: Operand) -> jax.Array:
    """One for each of the batch, which is at the front."""
    rows, columns = (of.summed, of.free) if of.end == "first" else (of.free, of.summed)
    batch = [of.shape[i] for i in of.batch]
    ordered = array.transpose(*of.batch, *rows, *columns)
    return ordered.reshape(*batch, of.size(rows), of.size(columns))

"""Products that every pass of a loop adds to a sum, as one product after the loop.

A weight that every pass of a ``scan`` uses, as in a recurrent net, has as its gradient the sum
of one product a pass. Of few examples each product is small, and adding it reads and writes the
whole gradient. All of them are one product over passes and examples, of factors that the loop
writes instead: only where those are, in a pass, no more than the sum, and for all sums together
no more than what the pass reads. benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import jax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Literal, Var
from jax.extend.core.primitives import add_jaxvals_p, add_p, dot_general_p, transpose_p

from ._scan import Body


class LoopSum(NamedTuple):
    """A carry to which every pass adds a product, and that nothing else uses."""

    carry: int  # which one
    product: JaxprEqn
    transposes: tuple[JaxprEqn, ...]  # of the product
    addition: JaxprEqn

    @property
    def factors(self) -> tuple[Var, Var]:
        left, right = cast(list[Var], self.product.invars)
        return left, right

    @property
    def eqns(self) -> tuple[JaxprEqn, ...]:
        return (self.product, *self.transposes, self.addition)


@lru_cache(maxsize=1024)
def loop_sums(body: Body) -> tuple[LoopSum, ...]:
    """The sums that one product after the loop is to replace."""
    if not all(map(_is_known, body.jaxpr.invars)):
        return ()
    makers = {v: eqn for eqn in body.jaxpr.eqns for v in eqn.outvars}
    uses = Counter(v for eqn in body.jaxpr.eqns for v in eqn.invars if isinstance(v, Var))
    uses.update(v for v in body.jaxpr.outvars if isinstance(v, Var))
    found: list[LoopSum] = []
    for n, carry in enumerate(body.carry_in):
        each = _sum(body, n, makers, uses)
        if (
            each is not None
            and _bytes(written_for(body, [each])) <= _bytes([carry])
            and _bytes(written_for(body, [*found, each])) <= _bytes(body.xs)
        ):
            found.append(each)
    return tuple(found)


def written_for(body: Body, sums: Iterable[LoopSum]) -> tuple[Var, ...]:
    """What the loop has to write besides, to have the factors of ``sums`` of all passes."""
    there = {*body.xs, *(v for v in body.ys if isinstance(v, Var))}
    factors = dict.fromkeys(v for each in sums for v in each.factors)
    return tuple(v for v in factors if v not in there)


def total(of: LoopSum, left: jax.Array, right: jax.Array) -> jax.Array:
    """The sum of all products, of factors with the passes as their first axis."""
    summed, batch = of.product.params["dimension_numbers"]
    x, y = ((0, *(i + 1 for i in axes)) for axes in summed)
    x_batch, y_batch = (tuple(i + 1 for i in axes) for axes in batch)
    params = of.product.params | {"dimension_numbers": ((x, y), (x_batch, y_batch))}
    product = dot_general_p.bind(left, right, **params)
    for eqn in of.transposes:
        product = transpose_p.bind(product, **eqn.params)
    return product


def _sum(
    body: Body, carry: int, makers: Mapping[Any, JaxprEqn], uses: Counter[Any]
) -> LoopSum | None:
    """What a carry is, if it is the sum of products of two factors of every pass."""
    before, after = body.carry_in[carry], body.carry_out[carry]
    addition = None if isinstance(after, Literal) else makers.get(after)
    if addition is None or addition.primitive not in (add_p, add_jaxvals_p):
        return None
    if before not in addition.invars or (uses[before], uses[after]) != (1, 1):
        return None
    [term] = [v for v in addition.invars if v is not before]
    transposes: list[JaxprEqn] = []
    product = _only_for(term, makers, uses)
    while product is not None and product.primitive is transpose_p:
        transposes.insert(0, product)
        product = _only_for(product.invars[0], makers, uses)
    if product is None or product.primitive is not dot_general_p:
        return None
    for factor in product.invars:
        if isinstance(factor, Literal):
            return None
        if factor not in makers and factor not in (*body.carry_in, *body.xs):
            return None  # a constant
    return LoopSum(carry, product, tuple(transposes), addition)


def _only_for(v: Any, makers: Mapping[Any, JaxprEqn], uses: Counter[Any]) -> JaxprEqn | None:
    """What makes ``v``, if there is one user of it."""
    return makers.get(v) if not isinstance(v, Literal) and uses[v] == 1 else None


def _is_known(variable: Var) -> bool:
    """Whether it is an array of known size."""
    aval = variable.aval
    return isinstance(aval, ShapedArray) and isinstance(aval.size, int)


def _bytes(variables: Iterable[Var]) -> int:
    avals = [cast(ShapedArray, v.aval) for v in variables]
    return sum(aval.size * aval.dtype.itemsize for aval in avals)

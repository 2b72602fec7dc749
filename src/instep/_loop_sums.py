"""Products that every pass of a loop adds to a sum, as one product after the loop.

A weight that every pass of a ``scan`` uses, as in a recurrent net, has as its gradient the sum
of one product a pass. Of few examples each product is small, and adding it reads and writes the
whole gradient. All of them are one product over passes and examples, of what they multiply: the
loop writes it, where it is less in a pass than the sum is, and than what the pass reads anyway.
benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import jax
from jax.core import ShapedArray
from jax.extend.core import JaxprEqn, Literal, Var
from jax.extend.core.primitives import add_jaxvals_p, add_p, dot_general_p, transpose_p

from ._scan import LoopSum, Pass


@lru_cache(maxsize=1024)
def loop_sums(one: Pass) -> tuple[LoopSum, ...]:
    """Those in whose place a pass writes less, where it writes what they multiply."""
    makers = {v: eqn for eqn in one.jaxpr.eqns for v in eqn.outvars}
    uses = Counter(v for eqn in one.jaxpr.eqns for v in eqn.invars if isinstance(v, Var))
    uses.update(v for v in one.jaxpr.outvars if isinstance(v, Var))
    found: list[LoopSum] = []
    if not all(map(_is_known, one.jaxpr.invars)):
        return ()
    for n in range(one.carries):
        each = _sum(one, n, makers, uses)
        if each is None or _bytes(to_be_kept(one, [each])) > _bytes([one.begins[n]]):
            continue
        if _bytes(to_be_kept(one, [*found, each])) <= _bytes(one.reads):
            found.append(each)
    return tuple(found)


def factors(one: Pass) -> frozenset[Var]:
    """What its sums multiply."""
    return frozenset(v for each in loop_sums(one) for v in each.factors)


def to_be_kept(one: Pass, sums: Iterable[LoopSum]) -> tuple[Var, ...]:
    """What the loop has to write besides, to have all that ``sums`` multiply."""
    there = {*one.reads, *(v for v in one.writes if isinstance(v, Var))}
    all_factors = dict.fromkeys(v for each in sums for v in each.factors)
    return tuple(v for v in all_factors if v not in there)


def _sum(
    one: Pass, carry: int, makers: Mapping[Any, JaxprEqn], uses: Counter[Any]
) -> LoopSum | None:
    """What a carry is, if it is the sum of products of two factors of every pass."""
    before, after = one.begins[carry], one.ends[carry]
    addition = None if isinstance(after, Literal) else makers.get(after)
    if addition is None or addition.primitive not in (add_p, add_jaxvals_p):
        return None
    if before not in addition.invars or (uses[before], uses[after]) != (1, 1):
        return None
    [term] = [v for v in addition.invars if v is not before]
    eqns, product = [addition], _only_for(term, makers, uses)
    while product is not None and product.primitive is transpose_p:
        eqns.insert(0, product)
        product = _only_for(product.invars[0], makers, uses)
    if product is None or product.primitive is not dot_general_p:
        return None
    left, right = product.invars
    if isinstance(left, Literal) or isinstance(right, Literal):
        return None
    if not all(v in makers or v in one.begins or v in one.reads for v in (left, right)):
        return None  # a constant
    return LoopSum(carry, (left, right), (product, *eqns), _total(product, eqns[:-1]))


def _only_for(v: Any, makers: Mapping[Any, JaxprEqn], uses: Counter[Any]) -> JaxprEqn | None:
    """What makes ``v``, if there is one user of it."""
    return makers.get(v) if not isinstance(v, Literal) and uses[v] == 1 else None


def _total(
    product: JaxprEqn, transposes: Sequence[JaxprEqn]
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The sum of all products, of factors with the passes as their first axis."""
    summed, batch = product.params["dimension_numbers"]
    x, y = ((0, *(i + 1 for i in axes)) for axes in summed)
    x_batch, y_batch = (tuple(i + 1 for i in axes) for axes in batch)
    params = product.params | {"dimension_numbers": ((x, y), (x_batch, y_batch))}

    def total(left: jax.Array, right: jax.Array) -> jax.Array:
        made = dot_general_p.bind(left, right, **params)
        for eqn in transposes:
            made = transpose_p.bind(made, **eqn.params)
        return made

    return total


def _is_known(variable: Var) -> bool:
    """Whether its size is, and it is an array."""
    aval = variable.aval
    return isinstance(aval, ShapedArray) and isinstance(aval.size, int)


def _bytes(variables: Iterable[Var]) -> int:
    avals = [cast(ShapedArray, v.aval) for v in variables]
    return sum(aval.size * aval.dtype.itemsize for aval in avals)

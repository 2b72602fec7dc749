"""What a loop writes for another to read, computed by its reader from what else it reads.

The loop of a forward pass writes to memory what the loop of the backward pass needs: the
derivative ``s (1 - s)`` of a sigmoid, beside ``s`` itself. Outside of loops XLA computes such
things where they are used, but what a ``scan`` has written, another reads. Here the pass that
would read them computes them. benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, NamedTuple

from jax.extend.core import Jaxpr, JaxprEqn, Literal, Var

from ._loop_sums import loop_sums
from ._scan import Body, may_change


CHEAP = frozenset([  # computed in less time than their results are read
    "add", "and", "broadcast_in_dim", "convert_element_type", "eq", "ge", "gt", "integer_pow",
    "le", "lt", "max", "min", "mul", "ne", "neg", "not", "one_minus_square", "or", "reshape",
    "select_n", "sign", "square", "squeeze", "sub",
])  # fmt: skip
FEW = 4  # operations: more are not computed again


class Residual(NamedTuple):
    """A program that computes what a loop would have written, and what it computes it from."""

    program: Jaxpr
    sources: tuple[Var, ...]  # of the jaxpr that has both loops


@lru_cache(maxsize=1024)
def residuals(jaxpr: Jaxpr) -> Mapping[Var, Residual]:
    """What the loops in ``jaxpr`` are not to write, as each of its readers can compute it."""
    read_beside = _read_beside(jaxpr)
    found: dict[Var, Residual] = {}
    needed: set[Var] = set()
    for eqn in filter(may_change, jaxpr.eqns):
        body = Body.of(eqn)
        makers = {v: x for x in body.jaxpr.eqns for v in x.outvars}
        factors = _factors(body)
        xs, ys = body.arrays(eqn)
        written = list(zip(body.ys, ys, strict=True))
        known = [*zip(body.xs, xs, strict=True), *written]
        for inner, outer in written:
            if isinstance(inner, Literal) or inner in factors:
                continue
            if outer not in read_beside or outer in needed:
                continue
            readable = read_beside[outer] - {outer} - found.keys()
            there = {v: w for v, w in known if isinstance(v, Var) and w in readable}
            if (eqns := _made_of(inner, makers, there)) is not None:
                sources = [v for v in there if any(v in x.invars for x in eqns) or v is inner]
                program = body.jaxpr.replace(
                    constvars=[], invars=sources, outvars=[inner], eqns=eqns
                )
                found[outer] = Residual(program, tuple(there[v] for v in sources))
                needed |= {*found[outer].sources}
    return found


def _made_of(
    inner: Var, makers: Mapping[Var, JaxprEqn], there: Mapping[Var, Var]
) -> list[JaxprEqn] | None:
    """A few cheap operations that make ``inner`` of what is there; None: it takes others."""
    eqns: dict[int, JaxprEqn] = {}

    def is_made(v: Any, deep: int = 0) -> bool:
        if isinstance(v, Literal) or v in there:
            return True
        eqn = makers.get(v)
        if eqn is None or eqn.primitive.name not in CHEAP or deep == FEW:
            return False
        known = all(is_made(x, deep + 1) for x in eqn.invars)
        eqns[id(eqn)] = eqn
        return known and len(eqns) <= FEW

    return [*eqns.values()] if is_made(inner) else None


def _read_beside(jaxpr: Jaxpr) -> Mapping[Var, Set[Var]]:
    """Of each variable that only loops read, pass by pass: what all of them read so."""
    found: dict[Var, Set[Var]] = {}
    others = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for eqn in jaxpr.eqns:
        xs: Sequence[Var] = ()
        if may_change(eqn):
            body = Body.of(eqn)
            xs, _ = body.arrays(eqn)
            own, factors = frozenset(xs), _factors(body)
            for inner, outer in zip(body.xs, xs, strict=True):
                found[outer] = found[outer] & own if outer in found else own
                if inner in factors:
                    others.add(outer)
        others |= {v for v in eqn.invars[: len(eqn.invars) - len(xs)] if isinstance(v, Var)}
    return {v: beside for v, beside in found.items() if v not in others}


def _factors(body: Body) -> frozenset[Var]:
    """What its sums multiply, which has to be there of all passes."""
    return frozenset(v for each in loop_sums(body) for v in each.factors)

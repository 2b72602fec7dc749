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

from ._loop_sums import factors
from ._scan import Pass, Recipe, may_change


ELEMENTWISE = """
    add and eq ge gt integer_pow le lt max min mul ne neg not one_minus_square or select_n sign
    square sub
"""
LAYOUTS = "broadcast_in_dim convert_element_type reshape squeeze"
CHEAP = frozenset(f"{ELEMENTWISE} {LAYOUTS}".split())  # next to reading from memory
MANY = 4  # operations


class Residual(NamedTuple):
    """How to compute it from others that its readers read as well."""

    program: Jaxpr
    sources: tuple[Var, ...]  # of the jaxpr that has both loops

    def recipe(self, reads: Sequence[Var]) -> Recipe:
        """For a loop that reads ``reads``."""
        return Recipe(self.program, tuple(reads.index(v) for v in self.sources))


@lru_cache(maxsize=1024)
def residuals(jaxpr: Jaxpr) -> Mapping[Var, Residual]:
    """What the loops in ``jaxpr`` are not to write, as each of its readers can compute it."""
    read_by = _read_by(jaxpr)
    found: dict[Var, Residual] = {}
    needed: set[Var] = set()
    for eqn in filter(may_change, jaxpr.eqns):
        one = Pass.of(eqn)
        makers = {v: x for x in one.jaxpr.eqns for v in x.outvars}
        reads, writes = one.outside(eqn)
        written = list(zip(one.writes, writes, strict=True))
        known = [*zip(one.reads, reads, strict=True), *written]
        for inner, outer in written:
            if outer not in read_by or outer in needed or isinstance(inner, Literal):
                continue
            there = {
                v: w
                for v, w in known
                if w in read_by[outer]
                and w is not outer
                and w not in found
                and isinstance(v, Var)
            }
            recipe = None if inner in factors(one) else _recipe(inner, makers, there)
            if recipe is not None:
                eqns, sources = recipe
                program = one.jaxpr.replace(
                    constvars=[], invars=sources, outvars=[inner], eqns=eqns
                )
                found[outer] = Residual(program, tuple(there[v] for v in sources))
                needed |= {*found[outer].sources}
    return found


def _recipe(
    inner: Var, makers: Mapping[Var, JaxprEqn], there: Mapping[Var, Var]
) -> tuple[list[JaxprEqn], list[Var]] | None:
    """A few operations that make ``inner``, and what there is that they begin with; or None."""
    eqns: dict[int, JaxprEqn] = {}
    sources: dict[Var, None] = {}

    def is_made(v: Any, deep: int = 0) -> bool:
        if isinstance(v, Literal):
            return True
        if v in there:
            sources[v] = None
            return True
        eqn = makers.get(v)
        if eqn is None or eqn.primitive.name not in CHEAP or deep == MANY:
            return False
        known = all(is_made(x, deep + 1) for x in eqn.invars)
        eqns[id(eqn)] = eqn
        return known and len(eqns) <= MANY

    return ([*eqns.values()], [*sources]) if is_made(inner) else None


def _read_by(jaxpr: Jaxpr) -> Mapping[Var, Set[Var]]:
    """Of what nobody but loops reads, pass by pass: what each of these loops reads."""
    found: dict[Var, Set[Var]] = {}
    others = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for eqn in jaxpr.eqns:
        reads: Sequence[Var] = ()
        if may_change(eqn):
            one = Pass.of(eqn)
            reads, _ = one.outside(eqn)
            own = frozenset(reads)
            for inner, outer in zip(one.reads, reads, strict=True):
                found[outer] = found[outer] & own if outer in found else own
                others |= {outer} if inner in factors(one) else set()
        others |= {v for v in eqn.invars[: len(eqn.invars) - len(reads)] if isinstance(v, Var)}
    return {v: reads for v, reads in found.items() if v not in others}

"""What a loop writes for another to read, computed by its reader from what else it reads.

The loop of a forward pass writes to memory what the loop of the backward pass needs: the
derivative ``s (1 - s)`` of a sigmoid, beside ``s`` itself. Outside of loops XLA computes such
things where they are used, but what a ``scan`` has written, another reads. Here the pass that
would read them computes them. benchmarks/NOTES.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from jax.extend.core import Jaxpr, Literal, Var

from ._loop_sums import factors
from ._scan import Pass, Recipe, may_change


ELEMENTWISE = "add and eq ge gt le lt max min mul ne neg not or select_n sign square sub"
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
        reads, writes = one.outside(eqn)
        written = list(zip(one.writes, writes, strict=True))
        known = [*zip(one.reads, reads, strict=True), *written]
        for inner, outer in written:
            if outer not in read_by or outer in needed or isinstance(inner, Literal):
                continue
            there = {
                v: w
                for v, w in known
                if w in read_by[outer] and w not in (outer, *found) and isinstance(v, Var)
            }
            program = None if inner in factors(one) else _recipe(inner, one, there)
            if program is not None:
                found[outer] = Residual(program, tuple(there[v] for v in program.invars))
                needed |= {*found[outer].sources}
    return found


def _recipe(inner: Var, one: Pass, there: Mapping[Var, Var]) -> Jaxpr | None:
    """A few operations that make ``inner`` of some that are there; None: it takes more."""
    makers = {v: eqn for eqn in one.jaxpr.eqns for v in eqn.outvars}
    wanted: set[int] = set()
    sources: dict[Var, None] = {}
    asked = [inner]
    while asked:
        v = asked.pop()
        if v in there:
            sources[v] = None
            continue
        eqn = makers.get(v)
        if eqn is None or eqn.primitive.name not in CHEAP:
            return None
        wanted.add(id(eqn))
        asked += [x for x in eqn.invars if isinstance(x, Var)]
        if len(wanted) > MANY:
            return None
    eqns = [eqn for eqn in one.jaxpr.eqns if id(eqn) in wanted]
    return one.jaxpr.replace(constvars=[], invars=[*sources], outvars=[inner], eqns=eqns)


def _read_by(jaxpr: Jaxpr) -> Mapping[Var, Set[Var]]:
    """Of what nobody but loops reads, pass by pass: what each of these loops reads."""
    found: dict[Var, Set[Var]] = {}
    others = {v for v in jaxpr.outvars if isinstance(v, Var)}
    for eqn in jaxpr.eqns:
        reads: Sequence[Var] = ()
        if may_change(eqn):
            one = Pass.of(eqn)
            reads, _ = one.outside(eqn)
            for inner, outer in zip(one.reads, reads, strict=True):
                found[outer] = found.get(outer, {*reads}) & {*reads}
                others |= {outer} if inner in factors(one) else set()
        others |= {v for v in eqn.invars[: len(eqn.invars) - len(reads)] if isinstance(v, Var)}
    return {v: reads for v, reads in found.items() if v not in others}

"""A ``scan`` of a jaxpr: what it does with the variables of a pass, and the loop changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Var
from jax.extend.core.primitives import scan_p

from ._compat import scan_counts
from ._eqn import is_sharded


Evaluate = Callable[[Jaxpr, Sequence[Any], Sequence[Any]], list[Any]]


class Pass(NamedTuple):
    """One pass of a ``scan``: its program, by what the loop does with the variables."""

    jaxpr: Jaxpr
    constants: int
    carries: int

    @staticmethod
    def of(eqn: JaxprEqn) -> Pass:
        return Pass(eqn.params["jaxpr"].jaxpr, *scan_counts(eqn.params))

    @property
    def begins(self) -> Sequence[Var]:
        return self.jaxpr.invars[self.constants :][: self.carries]

    @property
    def reads(self) -> Sequence[Var]:
        return self.jaxpr.invars[self.constants + self.carries :]

    @property
    def ends(self) -> Sequence[Any]:
        return self.jaxpr.outvars[: self.carries]

    @property
    def writes(self) -> Sequence[Any]:
        return self.jaxpr.outvars[self.carries :]

    def outside(self, eqn: JaxprEqn) -> tuple[Sequence[Var], Sequence[Var]]:
        """What it reads and writes, by the variables of the ``scan``."""
        reads = eqn.invars[self.constants + self.carries :]  # stacked, so none is a Literal
        return cast(list[Var], reads), eqn.outvars[self.carries :]


class Recipe(NamedTuple):
    """How a pass computes what another loop would have written for it."""

    program: Jaxpr
    sources: tuple[int, ...]  # its operands, of what the pass reads


class LoopSum(NamedTuple):
    """A carry to which every pass adds a product, and that nothing else uses."""

    carry: int  # which one
    factors: tuple[Var, Var]
    eqns: tuple[JaxprEqn, ...]  # the product, transpositions of it, and the addition
    total: Callable[[jax.Array, jax.Array], jax.Array]  # of factors of all passes


class Change(NamedTuple):
    """What a loop is to do otherwise."""

    sums: tuple[LoopSum, ...] = ()  # as one product after it
    kept: tuple[Var, ...] = ()  # what it has to write for them
    unwritten: frozenset[int] = frozenset()  # of what it writes; there is None in its place
    recipes: Mapping[int, Recipe] = {}  # of what it reads, instead of reading it


def may_change(eqn: JaxprEqn) -> bool:
    """Whether it is a loop of known length, and no axis of a mesh is part of its types."""
    known = eqn.primitive is scan_p and isinstance(eqn.params["length"], int)
    return known and not is_sharded(eqn)


def changed(
    eqn: JaxprEqn, change: Change, operands: Sequence[Any], evaluate: Evaluate
) -> list[Any]:
    """The results of a ``scan`` that does as ``change`` says.

    Args:
      eqn: the ``scan``.
      change: of it.
      operands: of ``eqn``; what there is a recipe of is not looked at.
      evaluate: computes what a program makes of its constants and operands.
    """
    one, sums = Pass.of(eqn), {x.carry: x for x in change.sums}
    written = [v for n, v in enumerate(one.writes) if n not in change.unwritten]
    left_out = {id(x) for each in change.sums for x in each.eqns}
    program = one.jaxpr.replace(
        eqns=[x for x in one.jaxpr.eqns if id(x) not in left_out],
        outvars=[v for n, v in enumerate(one.ends) if n not in sums] + written + [*change.kept],
    )
    consts, operands = operands[: one.constants], operands[one.constants :]
    begin, read = operands[: one.carries], operands[one.carries :]

    def one_pass(carry: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
        reads = _with_gaps(given, len(one.reads), change.recipes)
        for n, recipe in change.recipes.items():
            sources = [reads[source] for source in recipe.sources]
            [reads[n]] = evaluate(recipe.program, (), sources)
        begins = _with_gaps(carry, one.carries, sums)
        made = evaluate(program, eqn.params["jaxpr"].consts, [*consts, *begins, *reads])
        return made[: len(carry)], made[len(carry) :]

    end, made = lax.scan(
        one_pass,
        _without(begin, sums),
        _without(read, change.recipes),
        **{name: eqn.params[name] for name in ("length", "reverse", "unroll")},
    )
    of_all = dict(zip(one.reads, read, strict=True))
    of_all |= {
        v: x for v, x in zip([*written, *change.kept], made, strict=True) if isinstance(v, Var)
    }
    ends = _with_gaps(end, one.carries, sums)
    for n, each in sums.items():
        factors = [of_all[v] for v in each.factors]
        total = jax.make_jaxpr(each.total)(*factors)
        ends[n] = begin[n] + evaluate(total.jaxpr, total.consts, factors)[0]
    return ends + _with_gaps(made[: len(written)], len(one.writes), change.unwritten)


def _without(values: Sequence[Any], gaps: Any) -> list[Any]:
    return [x for n, x in enumerate(values) if n not in gaps]


def _with_gaps(values: Sequence[Any], length: int, gaps: Any) -> list[Any]:
    rest = iter(values)
    return [None if n in gaps else next(rest) for n in range(length)]

"""A ``scan`` that does some things otherwise."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.extend.core import Jaxpr, JaxprEqn, Var

from ._loop_sums import LoopSum, loop_sums, total, written_for
from ._residuals import Residual
from ._scan import Body, may_change


Evaluate = Callable[[Jaxpr, Sequence[Any], Sequence[Any]], list[Any]]


class Change(NamedTuple):
    """What a loop is to do otherwise."""

    sums: tuple[LoopSum, ...]  # as one product after it
    unwritten: frozenset[int]  # of its ys; there is None in their place
    computed: Mapping[int, Residual]  # of its xs, from others of them


def change_of(eqn: JaxprEqn, unwritten: Mapping[Var, Residual]) -> Change | None:
    """The change to an operation of a jaxpr with these ``residuals``; None: there is none."""
    if not may_change(eqn):
        return None
    body = Body.of(eqn)
    xs, ys = body.arrays(eqn)
    change = Change(
        loop_sums(body),
        frozenset(n for n, v in enumerate(ys) if v in unwritten),
        {n: unwritten[v] for n, v in enumerate(xs) if v in unwritten},
    )
    return change if any(change) else None


def scanned(
    eqn: JaxprEqn, change: Change, operands: Sequence[Any], evaluate: Evaluate
) -> list[Any]:
    """The results of a ``scan``.

    Args:
      eqn: the ``scan``.
      change: what it is to do otherwise.
      operands: those of ``eqn``; anything in place of what is ``computed``.
      evaluate: computes the results of a jaxpr from its constants and operands.
    """
    body, sums = Body.of(eqn), {x.carry: x for x in change.sums}
    xs_of_all, _ = body.arrays(eqn)
    ys = [v for n, v in enumerate(body.ys) if n not in change.unwritten]
    ys += written_for(body, change.sums)
    left_out = {id(x) for each in change.sums for x in each.eqns}
    program = body.jaxpr.replace(
        eqns=[x for x in body.jaxpr.eqns if id(x) not in left_out],
        outvars=[v for n, v in enumerate(body.carry_out) if n not in sums] + ys,
    )
    consts, begin = operands[: body.consts], operands[body.consts :][: body.carries]
    xs = operands[body.consts + body.carries :]

    def one_pass(carry: list[Any], given: list[Any]) -> tuple[list[Any], list[Any]]:
        read = _with_gaps(given, len(xs), change.computed)
        values = dict(zip(xs_of_all, read, strict=True))
        for n, each in change.computed.items():
            [read[n]] = evaluate(each.program, (), [values[v] for v in each.sources])
        carry_in = _with_gaps(carry, body.carries, sums)
        made = evaluate(program, eqn.params["jaxpr"].consts, [*consts, *carry_in, *read])
        return made[: len(carry)], made[len(carry) :]

    end, written = lax.scan(
        one_pass,
        [x for n, x in enumerate(begin) if n not in sums],
        [x for n, x in enumerate(xs) if n not in change.computed],
        **{name: eqn.params[name] for name in ("length", "reverse", "unroll")},
    )
    of_all = dict(zip(body.xs, xs, strict=True))
    of_all |= {v: x for v, x in zip(ys, written, strict=True) if isinstance(v, Var)}
    carry_out = _with_gaps(end, body.carries, sums)
    for n, each in sums.items():
        factors = [of_all[v] for v in each.factors]
        after = jax.make_jaxpr(partial(total, each))(*factors)
        [product] = evaluate(after.jaxpr, after.consts, factors)
        carry_out[n] = begin[n] + product
    return carry_out + _with_gaps(written, len(body.ys), change.unwritten)


def _with_gaps(values: Sequence[Any], length: int, gaps: Container[int]) -> list[Any]:
    """The first of ``values`` in a list of this length, with None in its gaps."""
    rest = iter(values)
    return [None if n in gaps else next(rest) for n in range(length)]

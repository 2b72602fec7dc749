"""What a jaxpr does, as it is written and as it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import source_info_util
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

from .._interpret import Values, interpret


def equations(jaxpr: ClosedJaxpr | Jaxpr) -> Iterator[JaxprEqn]:
    """Every operation, those inside of calls, loops and branches too."""
    for eqn in (jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr).eqns:
        yield eqn
        for parameter in eqn.params.values():
            for inside in parameter if isinstance(parameter, tuple | list) else (parameter,):
                if isinstance(inside, ClosedJaxpr | Jaxpr):
                    yield from equations(inside)


def line(eqn: JaxprEqn) -> str:
    """``my_loop.py:12``"""
    return source_info_util.summarize(eqn.source_info).rpartition("/")[2].partition(" ")[0]


class Run(NamedTuple):
    """An operation that ran."""

    place: int  # in the program; a loop runs several times in one
    eqn: JaxprEqn
    kept: list[np.ndarray]


# (operation, operands, results) -> what to keep of them; None: it is not looked at.
Keep = Callable[[JaxprEqn, Values, Values], Values | None]


def recording(fn: Callable, keep: Keep) -> Callable[..., tuple[Any, list[Run]]]:
    """``fn``, which also returns what ``keep`` keeps of every operation that runs in it.

    It is compiled once for each shape of its arguments. Where ``fn`` returns nothing, the
    compiler removes what is not needed for what is kept. The runs are in no certain order.
    """
    record: list[Run] = []

    def observed(*args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        places = count()

        def rule(eqn: JaxprEqn, values: Values) -> Values:
            made = eqn.primitive.bind(*values, **eqn.params)
            made = list(made) if eqn.primitive.multiple_results else [made]
            kept = keep(eqn, values, made)
            if kept is not None:
                place = next(places)
                jax.debug.callback(
                    lambda *xs: record.append(Run(place, eqn, [np.array(x) for x in xs])), *kept
                )
            return made

        results = interpret(jaxpr, jax.tree.leaves(args), rule)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    jitted = jax.jit(observed)

    def call(*args: Any) -> tuple[Any, list[Run]]:
        record.clear()
        results = jitted(*args)
        jax.effects_barrier()
        return results, list(record)

    return call

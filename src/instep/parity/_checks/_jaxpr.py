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
    given: list[np.ndarray]  # operands, without keys
    made: list[np.ndarray]


def recording(
    fn: Callable, of: Callable[[JaxprEqn], bool]
) -> Callable[..., tuple[Any, list[Run]]]:
    """``fn``, which also returns what went into and came out of the operations ``of``.

    It is compiled once for each shape of its arguments. The runs are in no certain order.
    """
    record: list[Run] = []

    def observed(*args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        places = count()

        def rule(eqn: JaxprEqn, values: Values) -> Values:
            made = eqn.primitive.bind(*values, **eqn.params)
            made = list(made) if eqn.primitive.multiple_results else [made]
            if of(eqn):
                place, given = next(places), [x for x in values if not _is_key(x)]

                def keep(given, made):
                    arrays = ([np.array(x) for x in part] for part in (given, made))
                    record.append(Run(place, eqn, *arrays))

                jax.debug.callback(keep, given, made)
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


def _is_key(x: Any) -> bool:
    return jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)

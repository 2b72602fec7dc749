"""A function whose convolutions are in the form that XLA's CPU runs fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
from jax.extend.core import Jaxpr, JaxprEqn, jaxpr_as_fun, jaxprs_in_params
from jax.extend.core.primitives import conv_general_dilated_p
from jax.extend.source_info_util import current_name_stack, user_context

from ._convolution import convolve
from ._interpret import Values, done, interpret


F = TypeVar("F", bound=Callable[..., Any])

_AS_WRITTEN = ContextVar("as_written", default=False)


def fast_on_cpu(fn: F) -> F:
    """``fn`` with each of its convolutions as ``convolve``, if the CPU is the default backend.

    It is the same function, which rounds as XLA would round it. Derivatives are to be taken
    inside of it: theirs are convolutions too.
    """
    if _AS_WRITTEN.get() or jax.default_backend() != "cpu":
        return fn

    def on_cpu(*args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        leaves = jax.tree.leaves(args)
        if _convolves(jaxpr.jaxpr):
            results = interpret(jaxpr, leaves, _rule)
        else:
            results = jaxpr_as_fun(jaxpr)(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return on_cpu  # pyright: ignore[reportReturnType]


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, ``fast_on_cpu`` leaves functions alone: what is traced is what somebody wrote."""
    token = _AS_WRITTEN.set(True)
    try:
        yield
    finally:
        _AS_WRITTEN.reset(token)


def _convolves(jaxpr: Jaxpr) -> bool:
    return any(
        eqn.primitive is conv_general_dilated_p
        or any(_convolves(inside) for inside in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _rule(eqn: JaxprEqn, operands: Values) -> Values:
    """One operation, where it was written."""
    written = eqn.source_info
    name_stack = current_name_stack() + written.name_stack
    with user_context(written.traceback, name_stack=name_stack), eqn.ctx.manager:
        if eqn.primitive is conv_general_dilated_p:
            image, kernel = operands
            return [convolve(image, kernel, eqn.params)]
        return done(eqn, operands)

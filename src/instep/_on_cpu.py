"""A function in the form that XLA's CPU runs fast."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.core import ShapedArray, Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, jaxprs_in_params
from jax.extend.core.primitives import (
    conv_general_dilated_p,
    dot_general_p,
    select_and_scatter_add_p,
)
from jax.extend.source_info_util import current_name_stack, user_context

from ._changed_scan import Change, change_of, scanned
from ._channels_first import (
    ChannelsFirst,
    Value,
    as_it_lies,
    as_they_lie,
    in_order,
    program_of,
    result_of,
)
from ._computed_once import computed_once, shared
from ._convolve import convolve, has_a_fast_layout
from ._pooling import add_to_chosen, has_a_faster_sum
from ._product import has_a_faster_form, multiply
from ._residuals import residuals
from ._sharded import is_sharded


F = TypeVar("F", bound=Callable[..., Any])

NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

Form = Callable[[Any, Any, dict[str, Any]], Value]

FORMS: dict[Any, tuple[Callable[[JaxprEqn], bool], Form]] = {  # when, and which
    conv_general_dilated_p: (has_a_fast_layout, convolve),
    dot_general_p: (has_a_faster_form, multiply),
    select_and_scatter_add_p: (has_a_faster_sum, add_to_chosen),
}

WIDE = frozenset(map(jnp.dtype, ("float64", "complex128", "int64", "uint64")))

_AS_WRITTEN = ContextVar("as_written", default=False)


def fast_on_cpu(fn: F) -> F:
    """``fn`` in the ``FORMS`` that are fast, and with what is ``shared`` as ``computed_once``.

    Only if the CPU is the default backend. What is written channels first is computed channels
    last between convolutions, and programs that are called there, in place. Sums of products
    over the passes of a ``scan`` are one product after it, and ``residuals`` are computed by
    the loops that read them. It is the same function up to the order of its sums, and
    everything else stays as it is. Derivatives are to be taken inside of it: theirs are
    convolutions and products too. Where nothing is traced, a branch of ``fn`` needs a number,
    or ``fn`` turns on float64 for a part of itself, it is ``fn``.
    """
    if _AS_WRITTEN.get() or jax.default_backend() != "cpu":
        return fn

    def on_cpu(*args: Any) -> Any:
        leaves = jax.tree.leaves(args)
        if not any(isinstance(x, Tracer) for x in leaves):
            return fn(*args)
        try:
            jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        except NEEDS_VALUES:  # which there are, where a derivative is taken without jit
            return fn(*args)
        if jax.dtypes.canonicalize_dtype("float64") not in WIDE and _is_wide(jaxpr.jaxpr):
            return fn(*args)
        results = _evaluate(jaxpr.jaxpr, jaxpr.consts, leaves)
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


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    return [in_order(x) for x in _values(jaxpr, consts, operands)]


def _values(jaxpr: Jaxpr, consts: Sequence[Any], operands: Sequence[Value]) -> list[Value]:
    """What ``jaxpr`` makes, images kept channels last."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values |= zip(jaxpr.invars, operands, strict=True)

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    unwritten = residuals(jaxpr)  # None, until their readers compute them
    once = shared(jaxpr) - unwritten.keys()
    for eqn in jaxpr.eqns:
        results = _done(eqn, [read(v) for v in eqn.invars], change_of(eqn, unwritten))
        for variable, result in zip(eqn.outvars, results, strict=True):
            values[variable] = _once(result) if variable in once else result
    return [read(v) for v in jaxpr.outvars]


def _once(value: Value) -> Value:
    if isinstance(value, ChannelsFirst):
        return ChannelsFirst(computed_once(value.last))
    return computed_once(value)


def _done(eqn: JaxprEqn, operands: list[Value], change: Change | None) -> list[Value]:
    """One operation, where it was written."""
    name_stack = current_name_stack() + eqn.source_info.name_stack
    with user_context(eqn.source_info.traceback, name_stack=name_stack), eqn.ctx.manager:
        if change is not None:
            return scanned(eqn, change, [in_order(x) for x in operands], _evaluate)
        if (program := program_of(eqn, operands)) is not None:
            return _called(eqn, program, operands)
        form = _form(eqn)
        if (kept := as_they_lie(eqn, operands)) is not None and not is_sharded(eqn):
            return [result_of(eqn, x) for x in _bound(eqn, form, *kept)]
        if form is not convolve:
            operands = [in_order(x) for x in operands]
        return _bound(eqn, form, operands, eqn.params)


def _called(eqn: JaxprEqn, program: ClosedJaxpr, operands: list[Value]) -> list[Value]:
    """The program, in place; whoever differentiates it has the rule that it came with."""

    def made(*operands: Value) -> list[Value]:
        return _values(program.jaxpr, program.consts, operands)

    if eqn.primitive.name != "custom_jvp_call":
        return made(*operands)

    def as_given(*operands: Value) -> list[Value]:
        results = _bound(eqn, None, [in_order(x) for x in operands], eqn.params)
        are_kept = [isinstance(x, ChannelsFirst) for x in jax.eval_shape(made, *operands)]
        both = zip(results, are_kept, strict=True)
        return [ChannelsFirst(as_it_lies(x)) if is_kept else x for x, is_kept in both]

    fn = jax.custom_jvp(made)
    fn.defjvp(lambda primals, tangents: jax.jvp(as_given, primals, tangents))
    return fn(*operands)


def _bound(
    eqn: JaxprEqn, form: Form | None, operands: Sequence[Any], params: dict[str, Any]
) -> list[Any]:
    if form is not None:
        left, right = operands
        return [form(left, right, params)]
    if _changes_inside(eqn):
        params = {name: _rewritten(value) for name, value in params.items()}
    results = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(params))
    return list(results) if eqn.primitive.multiple_results else [results]


def _form(eqn: JaxprEqn) -> Form | None:
    """What computes the same faster; nothing where axes of a mesh are part of its type."""
    is_faster, form = FORMS.get(eqn.primitive, (lambda eqn: False, None))
    return form if form is not None and not is_sharded(eqn) and is_faster(eqn) else None


@lru_cache(maxsize=1024)
def _is_wide(jaxpr: Jaxpr) -> bool:
    """Whether anything in it has 64 bits."""
    return any(
        any(getattr(v.aval, "dtype", None) in WIDE for v in eqn.outvars)
        or any(map(_is_wide, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _changes_inside(eqn: JaxprEqn) -> bool:
    """Whether a program in ``eqn`` changes; one over axes of a mesh of its own never does."""
    inside = jaxprs_in_params(eqn.params)
    return eqn.primitive.name != "shard_map" and any(map(_is_changed, inside))


@lru_cache(maxsize=1024)
def _is_changed(jaxpr: Jaxpr) -> bool:
    """Whether ``_evaluate`` makes anything but the program itself."""
    return bool(shared(jaxpr) or residuals(jaxpr)) or any(
        _form(eqn) is not None
        or change_of(eqn, {}) is not None
        or any(map(_is_changed, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _rewritten(value: Any) -> Any:
    """A parameter of an operation: the program in it, or the programs, or as it is."""
    if type(value) in (tuple, list):
        return type(value)(map(_rewritten, value))
    if isinstance(value, ClosedJaxpr) and _is_changed(value.jaxpr):
        return _program(value)
    if isinstance(value, Jaxpr) and not value.constvars and _is_changed(value):
        made = _program(ClosedJaxpr(value, ()))
        return value if made.consts else made.jaxpr
    return value


@lru_cache(maxsize=128)
def _program(closed: ClosedJaxpr) -> ClosedJaxpr:
    """``closed`` as ``_evaluate`` evaluates it; the same object for the same, to be cached.

    As it is, where it takes or makes anything but plain arrays, or would make others.
    """
    if not all(map(_is_plain, closed.in_avals)):
        return closed
    taken = [
        jax.ShapeDtypeStruct(x.shape, x.dtype, weak_type=x.weak_type) for x in closed.in_avals
    ]

    def program(*operands: Any) -> list[Any]:
        return _evaluate(closed.jaxpr, closed.consts, operands)

    made = jax.make_jaxpr(program)(*taken)
    same = [str(x) for x in made.out_avals] == [str(x) for x in closed.out_avals]
    return made if same else closed


def _is_plain(aval: Any) -> bool:
    """Of an array of known shape, and of nothing that a mesh adds to its type."""
    if not isinstance(aval, ShapedArray) or not all(isinstance(n, int) for n in aval.shape):
        return False
    return str(aval) == str(ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type))

"""Run a jaxpr one operation at a time, under a rule of what each operation shall do.

Calls, scans, loops and branches are opened, so that the rule sees what is inside them. The
dtypes of values may rise on the way; loops and branches settle on the highest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal
from jax.extend.core.primitives import remat_p

from .._compat import scan_counts


Values = list[Any]
Rule = Callable[[JaxprEqn, Values], Values]  # (operation, its operands) -> its results
Control = Callable[[dict[str, Any], Values, Rule], Values]  # (parameters, operands, rule)

Watch = Callable[[Any, Values], None]

# Primitives that only call the jaxpr in one of their parameters.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


# And those that stay closed: PyTorch too keeps a scaler in float32 whatever it scales.
CLOSED = ("_instep_scaler_inverse", "_instep_scaler_update")


def done(eqn: JaxprEqn, operands: Values) -> Values:
    """The rule that changes nothing."""
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*operands, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def interpret(
    jaxpr: ClosedJaxpr | Jaxpr,
    operands: Sequence[Any],
    rule: Rule,
    control: Mapping[str, Control] | None = None,
) -> Values:
    """The results of ``jaxpr`` when every operation in it is done by ``rule``.

    Args:
      jaxpr, operands: what is run, and on what.
      rule: does one operation.
      control: opens scans, loops and branches; None: so that they can be traced again.
    """
    control = TRACED if control is None else control
    closed = isinstance(jaxpr, ClosedJaxpr)
    body, consts = (jaxpr.jaxpr, jaxpr.consts) if closed else (jaxpr, ())
    values = dict(zip(body.constvars, consts, strict=True))
    values |= zip(body.invars, operands, strict=True)

    def read(variable):
        if isinstance(variable, Literal):
            return np.asarray(variable.val, getattr(variable.aval, "dtype", None))
        return values[variable]

    for eqn in body.eqns:
        results = _apply(eqn, [read(v) for v in eqn.invars], rule, control)
        values |= zip(eqn.outvars, results, strict=True)
    return [read(v) for v in body.outvars]


def _apply(
    eqn: JaxprEqn, operands: Values, rule: Rule, control: Mapping[str, Control]
) -> Values:
    name = eqn.primitive.name
    if name in control:
        return control[name](eqn.params, operands, rule)
    if name in CALLS and eqn.params.get("name") not in CLOSED:
        return interpret(eqn.params[CALLS[name]], operands, rule, control)
    return rule(eqn, operands)


def _bounds(params: dict[str, Any]) -> tuple[int, int]:
    """Where the operands of a scan that are carried begin, and where they end."""
    constants, carried = scan_counts(params)
    return constants, constants + carried


def _scan(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    first, last = _bounds(params)
    consts, carry, xs = operands[:first], operands[first:last], operands[last:]

    def body(carry, x):
        results = interpret(params["jaxpr"], [*consts, *carry, *x], rule)
        return results[: len(carry)], results[len(carry) :]

    sample = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in xs]
    carry = _settle(lambda carry: jax.eval_shape(body, carry, sample)[0], carry)
    carry, ys = jax.lax.scan(
        lambda c, x: _like(c, body(c, x)),
        carry,
        xs,
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*carry, *ys]


def _while(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    of_cond, of_body, carry = operands[:first], operands[first:last], operands[last:]

    def body(*carry):
        return interpret(params["body_jaxpr"], [*of_body, *carry], rule)

    return jax.lax.while_loop(
        lambda carry: interpret(params["cond_jaxpr"], [*of_cond, *carry], rule)[0],
        lambda carry: _like(carry, (body(*carry), None))[0],
        _settle(lambda carry: jax.eval_shape(body, *carry), carry),
    )


def _cond(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    index, *operands = operands
    branches = [
        lambda *operands, branch=branch: interpret(branch, operands, rule)
        for branch in params["branches"]
    ]
    found = [jax.eval_shape(branch, *operands) for branch in branches]
    highest = [_highest(leaf.dtype for leaf in leaves) for leaves in zip(*found, strict=True)]

    def settled(branch):
        return lambda *operands: [
            jax.lax.convert_element_type(x, dtype) if jnp.issubdtype(dtype, np.inexact) else x
            for x, dtype in zip(branch(*operands), highest, strict=True)
        ]

    return jax.lax.switch(index, [settled(branch) for branch in branches], *operands)


def _shard_map(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    def body(*parts):
        return tuple(interpret(params["jaxpr"], parts, rule))

    names = ("mesh", "in_specs", "out_specs", "check_vma")
    mapped = jax.shard_map(
        body,
        axis_names=params["newly_manual_axes"],
        **{name: params[name] for name in names},
    )
    return list(mapped(*operands))


def _computed_again(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    """A region of ``jax.checkpoint`` stays one."""

    def region(*operands: Any) -> Values:
        return interpret(params["jaxpr"], operands, rule)

    made = jax.make_jaxpr(region)(*operands)
    body = made.jaxpr.replace(  # which takes its constants first
        constvars=(),
        invars=[*made.jaxpr.constvars, *made.jaxpr.invars],
        debug_info=made.jaxpr.debug_info.with_unknown_names(),
    )
    return remat_p.bind(*made.consts, *operands, **(params | {"jaxpr": body}))


TRACED: dict[str, Control] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "shard_map": _shard_map,
    remat_p.name: _computed_again,
}


def now(watch: Watch = lambda made, of: None) -> dict[str, Control]:
    """Control over arrays that are there: every iteration by itself, and one branch alone.

    Args:
      watch: called with what a scan cuts out of an array for one iteration, and with what it
        puts together in the end: (array, made of).
    """

    def scan(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
        first, last = _bounds(params)
        consts, carry, xs = operands[:first], operands[first:last], operands[last:]
        order = range(params["length"])
        made: list[Values] = []
        for i in reversed(order) if params["reverse"] else order:
            cut = [x[i] for x in xs]
            for piece, x in zip(cut, xs, strict=True):
                watch(piece, [x])
            results = interpret(params["jaxpr"], [*consts, *carry, *cut], rule, control)
            carry, ys = results[: len(carry)], results[len(carry) :]
            made.append(ys)
        if params["reverse"]:
            made.reverse()
        columns = [list(ys) for ys in zip(*made, strict=True)]
        stacked = [jnp.stack(ys) for ys in columns]
        for x, ys in zip(stacked, columns, strict=True):
            watch(x, ys)
        return [*carry, *stacked]

    def while_(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
        first, last = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        of_cond, of_body, carry = operands[:first], operands[first:last], operands[last:]
        while bool(interpret(params["cond_jaxpr"], [*of_cond, *carry], rule, control)[0]):
            carry = interpret(params["body_jaxpr"], [*of_body, *carry], rule, control)
        return carry

    def cond(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
        index, *operands = operands
        branches = params["branches"]
        chosen = branches[min(max(int(index), 0), len(branches) - 1)]
        return interpret(chosen, operands, rule, control)

    control: dict[str, Control] = {
        "scan": scan,
        "while": while_,
        "cond": cond,
        "shard_map": _shard_map_now,
    }
    return control


def _shard_map_now(params: dict[str, Any], operands: Values, rule: Rule) -> Values:
    """As one operation: a part of a batch on each device is not a number to look at."""
    del rule
    return _shard_map(params, operands, done)


def _settle(hand_on: Callable[[Values], Sequence[Any]], carry: Values) -> Values:
    """``carry`` in dtypes that are handed on as they are."""
    while True:
        handed_on = hand_on(carry)
        risen = [_highest((c.dtype, h.dtype)) for c, h in zip(carry, handed_on, strict=True)]
        if all(c.dtype == dtype for c, dtype in zip(carry, risen, strict=True)):
            return carry
        carry = [
            c if c.dtype == dtype else jax.lax.convert_element_type(c, dtype)
            for c, dtype in zip(carry, risen, strict=True)
        ]


def _like(carry: Values, results: tuple[Values, Any]) -> tuple[Values, Any]:
    """``results``, its carry in the dtypes of the one that was given."""
    handed_on, rest = results
    return [
        h if h.dtype == c.dtype else jax.lax.convert_element_type(h, c.dtype)
        for c, h in zip(carry, handed_on, strict=True)
    ], rest


def _highest(dtypes) -> Any:
    """The widest of floating dtypes; others do not change."""
    first, *others = dtypes
    for other in others:
        if jnp.issubdtype(other, jnp.floating) and other != first:
            first = jnp.promote_types(first, other)
    return first

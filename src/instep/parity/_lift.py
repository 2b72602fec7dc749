"""In a float64 walk nothing is rounded to a lower precision in between, on either side.

Models cast to float32 on purpose: a softmax, an RMSNorm, a loss. Where people train, that is an
upcast; in a float64 walk it would be the only rounding there is, and hide everything below
1e-8. So while the walk lasts, a cast to fewer bits than float64 gives float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from ._interpret import Values, interpret


def lift_jax(fn: Callable) -> Callable:
    """``fn``, traced and differentiated as it is, and computed with float64 for every float.

    The jaxpr keeps the dtypes that the program asked for, so its own checks hold; they are
    passed over only when it runs. A scalar constant in it is read as what was meant by it (see
    ``constant``). Not lifted: complex numbers, and operations that hold a program of their
    own (a linear solve, a kernel, a callback).
    """

    def lifted(*args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        results = interpret(jaxpr, jax.tree.leaves(args), lift)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return lifted


def lift(eqn: JaxprEqn, operands: Values) -> Values:
    """One operation, with float64 for every float."""
    primitive, params = eqn.primitive, dict(eqn.params)
    if _keeps_dtypes(eqn):
        operands = [_as_asked(x, v) for x, v in zip(operands, eqn.invars, strict=True)]
    else:
        operands = [_double(x, v) for x, v in zip(operands, eqn.invars, strict=True)]
        params |= {name: np.dtype(np.float64) for name, p in params.items() if _lower(p)}
        params |= {name: None for name, p in params.items() if isinstance(p, ALGORITHM)}
    if primitive.name == "reduce_precision":
        return operands
    if primitive.name in SCATTER and not _keeps_dtypes(eqn):
        return [_scatter(SCATTER[primitive.name], operands, params)]
    results = primitive.bind(*operands, **params)
    return list(results) if primitive.multiple_results else [results]


def _double(operand: Any, variable: Var | Literal) -> Any:
    """In float64, if the program has it in fewer bits."""
    dtype = getattr(variable.aval, "dtype", None)
    if not _lower(dtype):
        return operand
    if isinstance(variable, Literal):
        return jnp.asarray(constant(operand), np.float64)
    return jax.lax.convert_element_type(operand, np.float64)


def _as_asked(operand: Any, variable: Var | Literal) -> Any:
    """In the dtype that the program has."""
    dtype: Any = getattr(variable.aval, "dtype", None)
    return jax.lax.convert_element_type(operand, dtype) if _lower(dtype) else operand


def constant(value: np.ndarray) -> float:
    """The number that a scalar of fewer bits most likely stands for.

    Itself, if it is exact in so few bits that it was meant (1, 0.5, 2**-14). Else the shortest
    decimal that rounds to it, if it is short (0.1, 1e-5); or a fraction of small integers, or
    the root of one, alone or over pi (1/3, sqrt(1/2) in GELU, sqrt(2/pi)). Else itself.
    """
    exact, dtype = float(value), value.dtype
    few = jnp.finfo(dtype).nmant // 2
    if not np.isfinite(exact) or np.frexp(exact)[0] * 2.0**few % 1 == 0:
        return exact

    def root(square: float) -> float:
        return math.copysign(math.sqrt(_fraction(square)), exact)

    candidates = [
        *(float(f"{exact:.{digits}g}") for digits in range(1, 7)),
        _fraction(exact),
        root(exact**2),
        root(exact**2 * math.pi) / math.sqrt(math.pi),
    ]
    return next((x for x in candidates if dtype.type(x) == value), exact)


def _fraction(value: float) -> float:
    return float(Fraction(value).limit_denominator(128))


def _scatter(scatter: Callable, operands: Values, params: dict[str, Any]) -> Any:
    """Anew, because the jaxpr that combines two numbers has a dtype of its own."""
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return scatter(*operands, **{name: params[name] for name in names})


SCATTER = {
    "scatter": jax.lax.scatter,
    "scatter-add": jax.lax.scatter_add,
    "scatter-sub": jax.lax.scatter_sub,
    "scatter-mul": jax.lax.scatter_mul,
    "scatter-min": jax.lax.scatter_min,
    "scatter-max": jax.lax.scatter_max,
}


def _lower(dtype: Any) -> bool:
    """Whether this is a floating dtype of fewer bits than float64."""
    known = isinstance(dtype, np.dtype) and dtype != np.float64
    return known and jnp.issubdtype(dtype, jnp.floating)


# What a matrix product is told to round its operands to. None: it is computed in their dtype.
ALGORITHM = jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset

# Operations on bits, and those whose results are made elsewhere in the dtypes that were asked.
KEEP = ("bitcast_convert_type", "pure_callback", "io_callback", "debug_callback", "ffi_call")


def _keeps_dtypes(eqn: JaxprEqn) -> bool:
    """Whether its dtypes are fixed; so are those of operations with a program inside."""
    if eqn.primitive.name in SCATTER:
        return not any(_lower(getattr(v.aval, "dtype", None)) for v in eqn.invars) or (
            eqn.primitive.name == "scatter" and not _overwrites(eqn.params["update_jaxpr"])
        )
    inside = (x for p in eqn.params.values() for x in (p if isinstance(p, tuple) else (p,)))
    return eqn.primitive.name in KEEP or any(isinstance(x, Jaxpr | ClosedJaxpr) for x in inside)


def _overwrites(update: Any) -> bool:
    """Whether a scatter puts the new number in place of the old, as ``x.at[i].set`` does."""
    if update is None:
        return True
    jaxpr = update.jaxpr if isinstance(update, ClosedJaxpr) else update
    return not jaxpr.eqns and jaxpr.outvars[0] is jaxpr.invars[1]

"""In a float64 walk nothing is rounded to a lower precision in between, on either side.

Models cast to float32 on purpose: a softmax, an RMSNorm, a loss. Where people train, that is an
upcast; in a float64 walk it would be the only rounding there is, and hide everything below
1e-8. So while the walk lasts, a cast to fewer bits than float64 gives float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from torch.utils._python_dispatch import TorchDispatchMode

from ._interpret import Values, interpret


class LiftTorch(TorchDispatchMode):
    """Every operator of PyTorch that is asked for a floating dtype gets float64."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype")
        if dtype is not None and dtype.is_floating_point:
            kwargs = kwargs | {"dtype": torch.float64}
        return func(*args, **kwargs)


def lift_jax(fn: Callable) -> Callable:
    """``fn``, traced and differentiated as it is, and computed with float64 for every float.

    The jaxpr keeps the dtypes that the program asked for, so its own checks hold; they are
    passed over only when it runs. A constant in it is read as the shortest decimal that
    rounds to it: 0.1, not 0.100000001.
    """

    def lifted(*args: Any) -> Any:
        jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        results = interpret(jaxpr, jax.tree.leaves(args), _lift)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return lifted


def _lift(eqn: JaxprEqn, operands: Values) -> Values:
    primitive, params = eqn.primitive, dict(eqn.params)
    if _keeps_dtypes(eqn):
        operands = [_as_asked(x, v) for x, v in zip(operands, eqn.invars, strict=True)]
    else:
        operands = [_double(x, v) for x, v in zip(operands, eqn.invars, strict=True)]
        params |= {name: np.dtype(np.float64) for name, p in params.items() if _lower(p)}
    if primitive.name == "reduce_precision":
        return operands
    if primitive.name in SCATTER:
        return [_scatter(SCATTER[primitive.name], operands, params)]
    results = primitive.bind(*operands, **params)
    return list(results) if primitive.multiple_results else [results]


def _double(operand: Any, variable: Var | Literal) -> Any:
    """In float64, if the program has it in fewer bits."""
    dtype = getattr(variable.aval, "dtype", None)
    if not _lower(dtype):
        return operand
    if isinstance(variable, Literal):
        return jnp.asarray(float(str(operand)), np.float64)
    return jax.lax.convert_element_type(operand, np.float64)


def _as_asked(operand: Any, variable: Var | Literal) -> Any:
    """In the dtype that the program has."""
    dtype: Any = getattr(variable.aval, "dtype", None)
    return jax.lax.convert_element_type(operand, dtype) if _lower(dtype) else operand


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


# Operations on bits, and those whose results are made elsewhere in the dtypes that were asked.
KEEP = ("bitcast_convert_type", "pure_callback", "io_callback", "debug_callback", "ffi_call")


def _keeps_dtypes(eqn: JaxprEqn) -> bool:
    """Whether its dtypes are fixed; so are those of operations with a program inside."""
    inside = (x for p in eqn.params.values() for x in (p if isinstance(p, tuple) else (p,)))
    return eqn.primitive.name in KEEP or (
        eqn.primitive.name not in SCATTER
        and any(isinstance(x, Jaxpr | ClosedJaxpr) for x in inside)
    )

"""Plain operations by NumPy, which compiles nothing: most of what a step does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn, Literal

from .._interpret import Values
from .._lift import constant


def plain(eqn: JaxprEqn, operands: Values) -> Values | None:
    """Its results in float64, or None of an operation that is not plain."""
    name, params = eqn.primitive.name, eqn.params
    if name not in POINTWISE and name not in SHAPING:
        return None
    avals = [v.aval for v in (*eqn.invars, *eqn.outvars)]
    if not all(_is_plain(getattr(aval, "dtype", None)) for aval in avals):
        return None
    given = [
        np.asarray(constant(x)) if isinstance(v, Literal) and _is_short(v) else _double(x)
        for x, v in zip(operands, eqn.invars, strict=True)
    ]
    with np.errstate(all="ignore"):
        own = name in POINTWISE
        made = POINTWISE[name](*given) if own else SHAPING[name](params, *given)
    dtype: Any = getattr(eqn.outvars[0].aval, "dtype", None)
    floating = jnp.issubdtype(dtype, jnp.floating)
    return [np.asarray(made, np.float64 if floating else dtype)]


def _is_plain(dtype: Any) -> bool:
    return dtype is not None and (
        dtype == np.bool_
        or jnp.issubdtype(dtype, jnp.integer)
        or jnp.issubdtype(dtype, jnp.floating)
    )


def _is_short(v: Literal) -> bool:
    dtype = np.dtype(getattr(v.aval, "dtype", np.float64))
    return jnp.issubdtype(dtype, jnp.floating) and dtype != np.float64


def _double(x: Any) -> np.ndarray:
    array = np.asarray(x)
    floating = jnp.issubdtype(array.dtype, jnp.floating)
    return array.astype(np.float64, copy=False) if floating else array


POINTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "exp": np.exp,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "stop_gradient": np.asarray,
    "copy": np.asarray,
}


def _divide(params: dict[str, Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.issubdtype(x.dtype, np.integer):  # towards zero
        return np.trunc(np.true_divide(x, y)).astype(x.dtype)
    return x / y


def _broadcast(params: dict[str, Any], x: np.ndarray, *_: Any) -> np.ndarray:
    shape, at = params["shape"], params["broadcast_dimensions"]
    there = [1] * len(shape)
    for axis, size in zip(at, x.shape, strict=True):
        there[axis] = size
    return np.broadcast_to(x.reshape(there), shape)


def _select(params: dict[str, Any], which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    index = which.astype(np.int64)
    return np.select([index == i for i in range(len(cases))], cases)


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, x: function(x, axis=tuple(params["axes"]))


SHAPING: dict[str, Callable[..., Any]] = {
    "div": _divide,
    "integer_pow": lambda params, x: (
        x ** float(params["y"]) if params["y"] < 0 else x ** params["y"]
    ),
    "convert_element_type": lambda params, x: (
        x.astype(params["new_dtype"])
        if not jnp.issubdtype(params["new_dtype"], jnp.floating)
        else x.astype(np.float64)
    ),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x, *_: x.reshape(params["new_sizes"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "squeeze": lambda params, x: x.squeeze(tuple(params["dimensions"])),
    "reduce_sum": _reduce(np.sum),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "select_n": _select,
}

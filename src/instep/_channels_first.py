"""Arrays that are written channels first and kept channels last, between convolutions.

The fast forms of a convolution have the channels last. Of a net that is written with the
channels first, as PyTorch's are, XLA copies every image into the other order before each
convolution, and back behind it. What lies between two of them can mostly be computed in either
order: here it is computed channels last, and an array is brought back only for what cannot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn


T = TypeVar("T")


class ChannelsFirst(NamedTuple):
    """An array of shape ``(N, C, *S)``, kept channels last."""

    last: jax.Array  # shape=(N, *S, C)

    @property
    def ndim(self) -> int:
        return self.last.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        n, *s, c = self.last.shape
        return n, c, *s

    def transpose(self, *order: int) -> jax.Array:
        """``jax.Array.transpose`` of the array; moves nothing to the order it is kept in."""
        return self.last.transpose([_last(axis, self.ndim) for axis in order])


Value = jax.Array | ChannelsFirst  # what operations take and make

ELEMENTWISE = frozenset(  # operations on each number, or on those at one place
    [
        "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2",
        "atanh", "bessel_i0e", "bessel_i1e", "cbrt", "ceil", "clamp", "convert_element_type",
        "copy", "cos", "cosh", "digamma", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2",
        "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "lgamma", "log",
        "log1p", "logistic", "lt", "max", "min", "mul", "name", "ne", "neg", "nextafter", "not",
        "or", "population_count", "pow", "reduce_precision", "rem", "round", "rsqrt",
        "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign",
        "sin", "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor",
    ]
)  # fmt: skip
WINDOWS = (
    "window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation",
)  # fmt: skip
PER_AXIS = {  # parameters with an entry for each axis
    "pad": ("padding_config",),
    "reduce_window_max": WINDOWS,
    "reduce_window_min": WINDOWS,
    "reduce_window_sum": WINDOWS,
    "select_and_gather_add": WINDOWS,
    "select_and_scatter_add": WINDOWS,
    "slice": ("start_indices", "limit_indices", "strides"),
}
ALONG = {  # parameters that name axes
    "argmax": "axes", "argmin": "axes", "concatenate": "dimension", "cumlogsumexp": "axis",
    "cummax": "axis", "cummin": "axis", "cumprod": "axis", "cumsum": "axis",
    "reduce_and": "axes", "reduce_max": "axes", "reduce_min": "axes", "reduce_or": "axes",
    "reduce_prod": "axes", "reduce_sum": "axes", "rev": "dimensions", "sort": "dimension",
    "split": "axis", "squeeze": "dimensions",
}  # fmt: skip
SHAPED = {"broadcast_in_dim": "shape", "reshape": "new_sizes"}  # parameters with a new shape
ANY_ORDER = ELEMENTWISE | PER_AXIS.keys() | ALONG.keys() | SHAPED.keys()
CALLS = {  # parameters with a program
    "custom_jvp_call": "call_jaxpr",
    "jit": "jaxpr",
}


def program_of(eqn: JaxprEqn, operands: Sequence[Value]) -> ClosedJaxpr | None:
    """The program that ``eqn`` calls, if it is to be computed in place.

    None where no operand is kept channels last, or where the call says more than its program:
    shardings, or metadata (``computed_once``).
    """
    params = eqn.params
    if eqn.primitive.name not in CALLS or not _images(operands):
        return None
    shardings = (*params.get("in_shardings", ()), *params.get("out_shardings", ()))
    if eqn.ctx.xla_metadata or any(isinstance(s, jax.sharding.Sharding) for s in shardings):
        return None
    return params[CALLS[eqn.primitive.name]]


def in_order(value: Value) -> jax.Array:
    """The array, with its channels first."""
    return jnp.moveaxis(value.last, -1, 1) if isinstance(value, ChannelsFirst) else value


def transposed(y: jax.Array, order: Sequence[int]) -> Value:
    """``y``, channels last, in that order; kept as it is where that is channels first."""
    return ChannelsFirst(y) if tuple(order) == _order(y.ndim) else y.transpose(order)


def as_it_lies(value: Value) -> jax.Array:
    """The array, channels last; a number is itself."""
    if isinstance(value, ChannelsFirst):
        return value.last
    return jnp.moveaxis(value, 1, -1) if jnp.ndim(value) else value


def as_they_lie(
    eqn: JaxprEqn, operands: Sequence[Value]
) -> tuple[list[jax.Array], dict[str, Any]] | None:
    """The operands of ``eqn`` and its parameters, channels last.

    None where no operand is kept so, or where ``eqn`` depends on the order.
    """
    name, params, images = eqn.primitive.name, dict(eqn.params), _images(operands)
    if name not in ANY_ORDER or not images:
        return None
    if name in SHAPED:
        return _shaped(images[0], params, SHAPED[name])
    if name == "squeeze" and not {0, 1}.isdisjoint(params["dimensions"]):
        return None
    if params.get("window_dimensions", (1, 1))[1] > 1:  # of equal ones another is the first
        return None
    ndim = images[0].ndim
    if name in PER_AXIS:
        given = [p for p in PER_AXIS[name] if params.get(p) is not None]
        params |= {p: _turned(params[p]) for p in given}
    elif name in ALONG:
        axes = params[ALONG[name]]
        found = [_last(a, ndim) for a in np.atleast_1d(axes)]
        params[ALONG[name]] = tuple(sorted(found)) if isinstance(axes, tuple) else found[0]
    return [as_it_lies(x) for x in operands], params


def result_of(eqn: JaxprEqn, result: jax.Array) -> Value:
    """What ``eqn`` makes; ``result`` is what it made of operands ``as_they_lie``."""
    gone = eqn.params["axes"] if ALONG.get(eqn.primitive.name) == "axes" else ()
    if 0 not in gone and 1 not in gone:
        return ChannelsFirst(result)
    left = [axis for axis in _turned(range(result.ndim + len(gone))) if axis not in gone]
    return result.transpose(np.argsort(left))


def _shaped(
    x: ChannelsFirst, params: dict[str, Any], name: str
) -> tuple[list[jax.Array], dict[str, Any]] | None:
    """With other axes of space; None, if those of examples and channels change."""
    shape = params[name]
    axes = params.get("broadcast_dimensions", (0, 1))
    if shape[:2] != x.shape[:2] or axes[:2] != (0, 1) or params.get("dimensions"):
        return None
    params[name] = _turned(shape)
    if "broadcast_dimensions" in params:
        params["broadcast_dimensions"] = tuple(_last(a, len(shape)) for a in _turned(axes))
    return [x.last], params


def _images(operands: Sequence[Value]) -> list[ChannelsFirst]:
    return [x for x in operands if isinstance(x, ChannelsFirst)]


def _turned(entries: Sequence[T]) -> tuple[T, ...]:
    n, c, *s = entries
    return n, *s, c


def _last(axis: int, ndim: int) -> int:
    """Where an axis of the array lies, channels last."""
    return _order(ndim)[axis]


def _order(ndim: int) -> tuple[int, ...]:
    return 0, ndim - 1, *range(1, ndim - 1)

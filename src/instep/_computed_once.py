"""Values that XLA's CPU would compute better by themselves, computed so.

XLA fuses cheap operations into every user of their result, and so computes them as often as
there are users. A gradient of a residual stream has three in every block: the two products of
the layer it goes into, and the sum with the gradient of the block before, whose users take all
of that sum in again. Six layers up, a gradient is computed from six layers of products, three
times: the work grows with the square of the depth.

And a sum with what is summed fused into it is 8 times slower where one of the axes has a single
element, as the scores of `jax.nn.dot_product_attention` have. benchmarks/NOTES.md has the
measurements.
"""

from __future__ import annotations

from collections import defaultdict
from functools import lru_cache
from typing import Any

import jax
from jax import lax
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Jaxpr, JaxprEqn, Literal, jaxprs_in_params


LAYOUTS = frozenset(  # they compute nothing that is worth keeping
    ["broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "transpose"]
)
PRODUCTS = frozenset(["conv_general_dilated", "dot_general"])
FEW = 2**13  # numbers: to compute fewer again takes less than the call


@jax.jit
def _itself(x: jax.Array) -> jax.Array:
    return lax.optimization_barrier(x)  # else JAX sees that nothing is computed, and removes it


def computed_once(x: jax.Array) -> jax.Array:
    """``x``, into whose users XLA does not fuse what makes it.

    It copies nothing: a call that stays a call in the compiled program, and returns its
    argument where it lies. It takes a few microseconds.
    """
    with set_xla_metadata(inlineable="false"):
        return _itself(x)


@lru_cache(maxsize=1024)
def shared(jaxpr: Jaxpr) -> frozenset[Any]:
    """The variables of ``jaxpr`` that are to be computed once.

    Those with several users, one of which is a product or a convolution, which reads them from
    memory anyway; sums of gradients with several users; and what is summed up, of an axis of
    one element. What an operation of ``LAYOUTS`` makes is the value that it is given.
    """
    same: dict[Any, Any] = {}  # variable: the one whose numbers it has
    users: dict[Any, int] = defaultdict(int)
    made: set[Any] = set()  # here, by no operation of LAYOUTS
    kept: set[Any] = set()
    summed: set[Any] = set()

    for eqn in jaxpr.eqns:
        taken = {same.get(v, v) for v in eqn.invars if not isinstance(v, Literal)}
        if eqn.primitive.name in LAYOUTS and len(taken) == 1:
            same[eqn.outvars[0]] = taken.pop()
            continue
        made |= set(eqn.outvars)
        for v in taken:
            users[v] += 1
        if _multiplies(eqn):
            kept |= taken
        if eqn.primitive.name == "add_any":
            kept |= set(eqn.outvars)
        if eqn.primitive.name == "reduce_sum" and _has_an_axis_of_one(eqn.invars[0]):
            summed |= taken
    for v in jaxpr.outvars:
        if not isinstance(v, Literal):
            users[same.get(v, v)] += 1
    once = {v for v in kept if users[v] > 1} | summed
    return frozenset(v for v in once & made if _is_large(v))


def _is_large(variable: Any) -> bool:
    aval = variable.aval
    return isinstance(aval, ShapedArray) and isinstance(aval.size, int) and aval.size >= FEW


def _has_an_axis_of_one(variable: Any) -> bool:
    return 1 in variable.aval.shape


def _multiplies(eqn: JaxprEqn) -> bool:
    inside = jaxprs_in_params(eqn.params)
    return eqn.primitive.name in PRODUCTS or any(map(_has_product, inside))


@lru_cache(maxsize=1024)
def _has_product(jaxpr: Jaxpr) -> bool:
    return any(map(_multiplies, jaxpr.eqns))

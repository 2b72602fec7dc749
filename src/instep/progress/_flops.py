"""The multiplications and additions of a step, told by its jaxpr.

XLA's ``cost_analysis`` counts the body of a loop once, however often it runs, so the step of
``accumulate=4`` would have a quarter of its operations.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


UNKNOWN = "unknown"  # how often it runs is decided while it runs


def flops(jaxpr: ClosedJaxpr | Jaxpr) -> dict[str, int] | None:
    """Floating-point operations of the matrix products and convolutions of a program.

    A multiplication and an addition are two. The rest of a step is small beside them, and is
    not counted, as is usual; what ``jax.checkpoint`` computes again is counted. PyTorch:
    ``torch.utils.flop_counter.FlopCounterMode``.

    Args:
      jaxpr: of ``jax.make_jaxpr`` or ``jit(f).trace(...)``.

    Returns:
      By how they are multiplied: ``"bf16"`` (and float16), ``"tf32"`` (float32 at JAX's default
      precision), ``"fp32"``, ``"fp64"``. None: one is inside of a loop, branch or kernel of
      which a jaxpr does not say how often it runs.
    """
    counted = _counted(jaxpr)
    return None if UNKNOWN in counted else dict(counted)


def _counted(jaxpr: ClosedJaxpr | Jaxpr) -> Counter[str]:
    total: Counter[str] = Counter()
    for eqn in (jaxpr.jaxpr if isinstance(jaxpr, ClosedJaxpr) else jaxpr).eqns:
        name = eqn.primitive.name
        if name == "dot_general":
            total[_kind(eqn)] += _dot(eqn)
        elif name == "conv_general_dilated":
            total[_kind(eqn)] += _conv(eqn)
        else:
            total += _inside(name, eqn.params)
    return total


def _inside(name: str, params: dict[str, Any]) -> Counter[str]:
    parts = [_counted(part) for part in _jaxprs(params)]
    total: Counter[str] = Counter()
    for part in parts:
        total += part
    if name == "scan":
        return Counter({kind: n * params["length"] for kind, n in total.items()})
    manual = params.get("newly_manual_axes")
    if manual is not None:  # of shard_map, whose body is that of one device along them
        devices = math.prod(params["mesh"].shape[axis] for axis in manual)
        return Counter({kind: n * devices for kind, n in total.items()})
    alike = name == "cond" and all(part == parts[0] for part in parts)
    if alike:
        return parts[0]
    if total and name in ("cond", "while", "shard_map", "pallas_call"):
        return Counter({UNKNOWN: 1})
    return total


def _jaxprs(params: dict[str, Any]) -> list[ClosedJaxpr | Jaxpr]:
    values = [x for p in params.values() for x in (p if isinstance(p, tuple | list) else (p,))]
    return [x for x in values if isinstance(x, ClosedJaxpr | Jaxpr)]


def _dot(eqn: JaxprEqn) -> int:
    (contracted, _), _ = eqn.params["dimension_numbers"]
    left = _aval(eqn.invars[0]).shape
    return 2 * math.prod(_aval(eqn.outvars[0]).shape) * math.prod(left[i] for i in contracted)


def _conv(eqn: JaxprEqn) -> int:
    """Every output is a sum over the window and the channels of one group.

    Of a convolution that is dilated on its left, as that of a gradient, the zeros in between
    are not counted.
    """
    numbers = eqn.params["dimension_numbers"]
    kernel = _aval(eqn.invars[1]).shape
    taken = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    spread = math.prod(eqn.params["lhs_dilation"])
    return 2 * math.prod(_aval(eqn.outvars[0]).shape) * taken // spread


def _aval(x: Any) -> Any:
    return x.aval


def _kind(eqn: JaxprEqn) -> str:
    dtype = jnp.promote_types(*(_aval(x).dtype for x in eqn.invars))
    if dtype in (jnp.bfloat16, jnp.float16):
        return "bf16"
    if dtype != jnp.float32:
        return "fp64" if dtype == jnp.float64 else str(dtype)
    precision = eqn.params["precision"]
    default = (None, jax.lax.Precision.DEFAULT)
    both = precision if isinstance(precision, tuple) else (precision, precision)
    return "tf32" if all(p in default for p in both) else "fp32"

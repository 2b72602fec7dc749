"""Whether an operation of a jaxpr is sharded."""

from __future__ import annotations

from typing import cast

from jax.core import ShapedArray
from jax.extend.core import JaxprEqn


def is_sharded(eqn: JaxprEqn) -> bool:
    """Whether the types of its variables, or a sharding it asks for, name axes of a mesh."""
    shardings = [cast(ShapedArray, v.aval).sharding for v in (*eqn.invars, *eqn.outvars)]
    shardings += [eqn.params.get(name) for name in ("sharding", "out_sharding")]
    return any(axis is not None for s in shardings for axis in getattr(s, "spec", ()))

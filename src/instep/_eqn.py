"""What one operation of a jaxpr is."""

from __future__ import annotations

from typing import cast

from jax.core import ShapedArray
from jax.extend.core import JaxprEqn


def is_sharded(eqn: JaxprEqn) -> bool:
    """Over axes of a mesh that are part of the types of its variables, or that it asks for."""
    shardings = [cast(ShapedArray, v.aval).sharding for v in (*eqn.invars, *eqn.outvars)]
    shardings += [eqn.params.get(name) for name in ("sharding", "out_sharding")]
    return any(axis is not None for s in shardings for axis in getattr(s, "spec", ()))

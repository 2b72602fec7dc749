"""``jax.device_put``, of random keys too where other processes have devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding


def put(leaves: Sequence[Any], shardings: Sequence[Sharding]) -> list[Any]:
    """``jax.device_put(leaves, shardings)``; it refuses keys where a process has not all.

    A ``PartitionSpec`` of the keys fits their data, which have one axis more, the last.
    """
    keys = [
        _is_key(x) and not sharding.is_fully_addressable
        for x, sharding in zip(leaves, shardings, strict=True)
    ]
    data = [
        np.asarray(jax.random.key_data(x)) if key else x
        for x, key in zip(leaves, keys, strict=True)
    ]
    there = jax.device_put(data, list(shardings))
    return [
        jax.random.wrap_key_data(now, impl=jax.random.key_impl(x)) if key else now
        for x, now, key in zip(leaves, there, keys, strict=True)
    ]


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)

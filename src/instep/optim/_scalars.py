"""The few scalar functions that several optimizers share."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def bias_correction(beta: float | jax.Array, t: jax.Array) -> jax.Array:
    """``1 - beta**t``: in float64 as PyTorch has it on the host, in float32 to a few ulp.

    As a power, float32 would lose 1e-5 of it at t = 1.

    Args:
      beta: decay rate, 0 <= beta < 1.
      t: steps, at least 1; shape (), int32.
    """
    dtype = jnp.result_type(float)
    if dtype == jnp.float64:
        return 1.0 - jnp.asarray(beta, dtype) ** t.astype(dtype)
    return -jnp.expm1(t.astype(dtype) * _log(beta))


def _log(beta: float | jax.Array) -> jax.Array:
    if isinstance(beta, float):
        return jnp.array(math.log(beta) if beta > 0 else -math.inf, jnp.result_type(float))
    return jnp.log(beta)


def lerp(start: jax.Array, end: jax.Array, weight: float | jax.Array) -> jax.Array:
    """``torch.lerp``, with its two branches: each is exact at the end it is closer to."""
    from_start = start + weight * (end - start)
    from_end = end - (end - start) * (1.0 - weight)
    if isinstance(weight, float):
        return from_start if weight < 0.5 else from_end
    return jnp.where(weight < 0.5, from_start, from_end)


def norm(x: jax.Array) -> jax.Array:
    """``torch.Tensor.norm(2)``: the root of the sum of squares of all elements."""
    return jnp.sqrt(jnp.sum(x * x))


def rms(x: jax.Array) -> jax.Array:
    """The root of the mean of squares of all elements."""
    return norm(x) / math.sqrt(x.size)

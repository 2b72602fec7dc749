"""Random tensors from noise that was drawn before; nothing here draws.

The formulas are those of PyTorch on the CPU. As there, no gradient goes to the parameters of a
distribution.

Shapes and dtypes: noise of any shape, floating; the result has both.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ._cast import cast
from ._promotion import result_type


def bernoulli(drawn: jax.Array, dtype: Any) -> jax.Array:
    """``torch.bernoulli``: what was ``drawn``, booleans, as 0 and 1 of ``dtype``."""
    return cast(drawn, dtype)


def normal(noise: jax.Array, mean: Any = 0.0, std: Any = 1.0) -> jax.Array:
    """``torch.normal``: of standard normal ``noise``, to which the parameters broadcast."""
    mean, std = (
        jnp.broadcast_to(cast(lax.stop_gradient(x), noise.dtype), noise.shape)
        for x in (mean, std)
    )
    return noise * std + mean


def uniform(noise: jax.Array, low: float = 0.0, high: float = 1.0) -> jax.Array:
    """``Tensor.uniform_`` from ``low`` to ``high``: of ``noise`` in [0, 1)."""
    return noise * (high - low) + low


def exponential(noise: jax.Array, rate: float = 1.0) -> jax.Array:
    """``Tensor.exponential_`` of a ``rate``: of ``noise`` in [0, 1)."""
    return -jnp.log1p(-noise) / rate


def log_normal(noise: jax.Array, mean: float = 1.0, std: float = 2.0) -> jax.Array:
    """``Tensor.log_normal_``: of standard normal ``noise``."""
    return jnp.exp(noise * std + mean)


def cauchy(noise: jax.Array, median: float = 0.0, sigma: float = 1.0) -> jax.Array:
    """``Tensor.cauchy_``: of ``noise`` in [0, 1)."""
    return median + sigma * jnp.tan(math.pi * (noise - 0.5))


def geometric(noise: jax.Array, p: float) -> jax.Array:
    """``Tensor.geometric_``: trials until the first success, of ``noise`` in [0, 1)."""
    above_0 = jnp.maximum(noise, jnp.finfo(noise.dtype).tiny)
    return jnp.ceil(jnp.log(above_0) / math.log1p(-p))


def multinomial(noise: jax.Array, weights: jax.Array, replacement: bool = False) -> jax.Array:
    """``torch.multinomial``: indices drawn by weight.

    One index, or several without replacement, are the largest weights divided by exponential
    noise. Several with replacement are found in the cumulative weights.

    Args:
      noise: in [0, 1); shape ``(..., S)``, one for each draw, or without replacement
        ``(..., C)``, one for each weight.
      weights: not negative, shape ``(..., C)``; they need not sum to 1.
      replacement: an index may be drawn more than once.

    Returns:
      int64; with replacement shape ``(..., S)``, without ``(..., C)``: all indices in the
      order in which they are drawn.
    """
    weights = weights.astype(noise.dtype)
    if not replacement:
        drawn = jnp.argsort(weights / exponential(noise), -1, descending=True)
        return drawn.astype(result_type(0))
    total = jnp.cumsum(weights, -1)
    share = total / total[..., -1:]
    shape = (*noise.shape, weights.shape[-1])
    below = jnp.broadcast_to(share[..., None, :], shape) < jnp.broadcast_to(
        noise[..., None], shape
    )
    return jnp.sum(below, -1).astype(result_type(0))

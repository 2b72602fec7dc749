"""A mean of zero and a variance of one: what the normalisations share."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def standardize(
    x: jax.Array, axes: tuple[int, ...], eps: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean 0 and variance 1 over ``axes``.

    .. math:: r = 1 / \\sqrt{\\sigma^2 + \\epsilon}, \\quad \\hat x = (x - \\mu) r, \\qquad
              d\\hat x = r \\left( dx - \\overline{dx} - \\hat x \\, \\overline{\\hat x dx}
              \\right)

    The variance is the biased one. The rule reads all it needs off the result.

    Returns:
      :math:`(\\hat x, \\mu, \\sigma^2)`; the last two with ``axes`` of length 1.
    """
    mean = jnp.mean(x, axes, keepdims=True)
    x = x - mean
    var = jnp.mean(x * x, axes, keepdims=True)
    return x * (1 / jnp.sqrt(var + eps)), mean, var


@standardize.defjvp
def _(axes, eps, primals, tangents):
    ([x], [dx]) = primals, tangents
    x, mean, var = standardize(x, axes, eps)
    deviation = jnp.sqrt(var + eps)
    d_mean = jnp.mean(dx, axes, keepdims=True)
    along = jnp.mean(x * dx, axes, keepdims=True)
    d = (dx - d_mean - x * along) * (1 / deviation)
    return (x, mean, var), (d, d_mean, 2 * deviation * along)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def rescale(x: jax.Array, axes: tuple[int, ...], eps: float) -> tuple[jax.Array, jax.Array]:
    """Mean square 1 over ``axes``: ``standardize`` with a mean taken to be 0.

    Returns:
      :math:`(\\hat x, r)`.
    """
    scale = 1 / jnp.sqrt(jnp.mean(x * x, axes, keepdims=True) + eps)
    return x * scale, scale


@rescale.defjvp
def _(axes, eps, primals, tangents):
    ([x], [dx]) = primals, tangents
    x, scale = rescale(x, axes, eps)
    along = jnp.mean(x * dx, axes, keepdims=True)
    return (x, scale), (scale * (dx - x * along), -scale * scale * along)

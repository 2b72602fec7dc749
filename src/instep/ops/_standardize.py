"""A mean of zero and a variance of one: what the normalisations share."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


AxisName = str | tuple[str, ...] | None


@partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def standardize(
    x: jax.Array, axes: tuple[int, ...], eps: float, axis_name: AxisName = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean 0 and variance 1 over ``axes``, and over the replicas of ``axis_name``.

    .. math:: r = 1 / \\sqrt{\\sigma^2 + \\epsilon}, \\quad \\hat x = (x - \\mu) r, \\qquad
              d\\hat x = r \\left( dx - \\overline{dx} - \\hat x \\, \\overline{\\hat x dx}
              \\right)

    The variance is the biased one. The rule reads all it needs off the result.

    Returns:
      :math:`(\\hat x, \\mu, \\sigma^2)`; the last two with ``axes`` of length 1.
    """
    mean = _mean(x, axes, axis_name)
    x = x - mean
    var = _mean(x * x, axes, axis_name)
    return x * (1 / jnp.sqrt(var + eps)), mean, var


@standardize.defjvp
def _(axes, eps, axis_name, primals, tangents):
    ([x], [dx]) = primals, tangents
    x, mean, var = standardize(x, axes, eps, axis_name)
    deviation = jnp.sqrt(var + eps)
    d_mean = _mean(dx, axes, axis_name)
    along = _mean(x * dx, axes, axis_name)
    d = (dx - d_mean - x * along) * (1 / deviation)
    return (x, mean, var), (d, d_mean, 2 * deviation * along)


def _mean(x: jax.Array, axes: tuple[int, ...], axis_name: AxisName) -> jax.Array:
    mean = jnp.mean(x, axes, keepdims=True)
    return mean if axis_name is None else jax.lax.pmean(mean, axis_name)


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

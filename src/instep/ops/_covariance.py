"""Covariance and correlation of variables, one in each row."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._promotion import as_floating


def cov(
    input: jax.Array,
    *,
    correction: int = 1,
    fweights: jax.Array | None = None,
    aweights: jax.Array | None = None,
) -> jax.Array:
    """``torch.cov``.

    Args:
      input: shape ``(variables, observations)``, or fewer axes for one variable.
      correction: subtracted from the number of observations.
      fweights: how often each observation was made, integers, shape ``(observations,)``.
      aweights: the weight of each, floating, shape ``(observations,)``.

    Returns:
      Shape ``(variables, variables)``, or ``()`` for one.
    """
    dtype = as_floating(input.dtype)
    x = jnp.atleast_2d(input.astype(dtype))
    real = jnp.finfo(dtype).dtype
    weights = None
    for w in (fweights, aweights):
        if w is not None:
            weights = w.astype(real) if weights is None else weights * w.astype(real)
    total = jnp.asarray(x.shape[-1], real) if weights is None else jnp.sum(weights)
    w = jnp.ones(x.shape[-1], dtype) if weights is None else weights.astype(dtype)
    mean = jnp.sum(x * w[None], -1, keepdims=True) / total.astype(dtype)
    if aweights is None or weights is None or correction == 0:
        left = total - correction
    else:
        left = total - correction * jnp.sum(weights * aweights.astype(real)) / total
    centered = x - mean
    made = (centered * w[None]) @ jnp.conj(centered.mT)
    made = made / jnp.maximum(left, 0).astype(dtype)
    return made if input.ndim == 2 and len(made) > 1 else made.squeeze()


def corrcoef(input: jax.Array) -> jax.Array:
    """``torch.corrcoef``: ``cov`` over the deviations of both, in [-1, 1].

    Args:
      input: as for ``cov``, floating or complex.
    """
    c = cov(input)
    if c.ndim == 0:
        return c / c
    deviation = jnp.sqrt(jnp.real(jnp.diagonal(c))).astype(c.dtype)
    c = c / deviation[:, None] / deviation[None]
    if not jnp.iscomplexobj(c):
        return jnp.clip(c, -1, 1)
    return c.real.clip(-1, 1) + 1j * c.imag.clip(-1, 1)

"""Softmax and its logarithm."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_softmax(input: jax.Array, dim: int) -> jax.Array:
    """``torch.log_softmax``.

    .. math:: y_i = x_i - \\log \\sum_j e^{x_j}

    The value is that of ``jax.nn.log_softmax``. The derivative is PyTorch's, which reads the
    probabilities off the result: :math:`dy_i = dx_i - \\sum_j e^{y_j} dx_j`. It keeps one
    array instead of two, and the second derivative of a confident row does not cancel.

    Args:
      input: :math:`x`, floating.
      dim: axis of the sum.
    """
    return jax.nn.log_softmax(input, dim)


@log_softmax.defjvp
def _(dim, primals, tangents):
    ([x], [dx]) = primals, tangents
    y = log_softmax(x, dim)
    return y, dx - jnp.sum(jnp.exp(y) * dx, dim, keepdims=True)

"""A straight-through estimator."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def straight_through(fn: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """``fn``, whose derivative is taken to be 1: a straight-through estimator.

    The value is that of ``fn`` to the bit. PyTorch's idiom ``x + (fn(x) - x).detach()``
    rounds twice; a ``torch.autograd.Function`` whose backward returns ``grad`` does not.

    Args:
      fn: keeps shape and dtype, such as ``jnp.round`` or ``jnp.sign``.

    Returns:
      The function, differentiable in both modes and to any order.

    Raises:
      TypeError: ``fn`` changes shape or dtype; when the function is called.

    References:
      Bengio, Léonard and Courville, `Estimating or Propagating Gradients Through Stochastic
      Neurons for Conditional Computation <https://arxiv.org/abs/1308.3432>`_, 2013.
    """

    @jax.custom_jvp
    def through(x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)  # it may be a Python number
        y = fn(x)
        if y.shape != x.shape or y.dtype != x.dtype:
            raise TypeError(
                f"fn makes {y.dtype}{list(y.shape)} of {x.dtype}{list(x.shape)}; a "
                f"straight-through estimator keeps both."
            )
        return y

    @through.defjvp
    def _(primals, tangents):
        return through(*primals), tangents[0]

    return through

"""Normalisations."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def batch_norm(
    input: jax.Array,
    running_mean: jax.Array | None,
    running_var: jax.Array | None,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    axis: int = 1,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """``torch.nn.functional.batch_norm``, returning the running statistics it rewrites.

    .. math::
        y &= \\frac{x - \\mu}{\\sqrt{\\sigma^2 + \\epsilon}} w + b \\\\
        \\text{running} &\\leftarrow (1 - \\text{momentum})\\,\\text{running}
              + \\text{momentum} \\cdot (\\mu, \\tfrac{n}{n - 1} \\sigma^2)

    PyTorch normalises with the biased variance and remembers the *unbiased* one; Flax
    remembers the biased one, and its momentum is 1 minus PyTorch's.

    Args:
      input: :math:`x`, channels on ``axis``, shape ``(N, C, ...)`` as PyTorch has it.
      running_mean, running_var: shape ``(C,)``; None without running statistics.
      weight, bias: :math:`w, b`, shape ``(C,)``, or None.
      training: normalise with the statistics of the batch and update the running ones.
      momentum: share of the new statistics.
      eps: :math:`\\epsilon`.
      axis: axis of the channels; -1 for ``(N, ..., C)``.

    Returns:
      ``(output, running_mean, running_var)``; the last two are unchanged in evaluation.

    Raises:
      ValueError: one value per channel in training, whose variance is not defined; or
        evaluation without running statistics.

    References:
      Ioffe and Szegedy, `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, 2015.
    """
    axis = axis % input.ndim
    reduced = tuple(i for i in range(input.ndim) if i != axis)
    channels = [1] * input.ndim
    channels[axis] = -1

    if training:
        n = math.prod(input.shape[i] for i in reduced)
        if n < 2:
            raise ValueError(
                f"training needs more than one value per channel; input of shape "
                f"{input.shape} has {n}. Use a larger batch, or training=False."
            )
        mean = jnp.mean(input, reduced)
        var = jnp.mean((input - mean.reshape(channels)) ** 2, reduced)
        if running_mean is not None:
            running_mean = (1.0 - momentum) * running_mean + momentum * mean
        if running_var is not None:
            running_var = (1.0 - momentum) * running_var + momentum * var * (n / (n - 1))
    elif running_mean is None or running_var is None:
        raise ValueError("evaluation needs running_mean and running_var; one is None.")
    else:
        mean, var = running_mean, running_var

    output = (input - mean.reshape(channels)) / jnp.sqrt(var + eps).reshape(channels)
    if weight is not None:
        output = output * weight.reshape(channels)
    if bias is not None:
        output = output + bias.reshape(channels)
    return output, running_mean, running_var

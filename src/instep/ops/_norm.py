"""Normalisations."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from .._dtypes import wide
from ._standardize import AxisName, standardize


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
    axis_name: AxisName = None,
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
      axis_name: mesh axis or axes over whose replicas the statistics are taken too, as
        ``torch.nn.SyncBatchNorm`` does: inside ``make_train_step(mesh=...)``, where a replica
        sees its part of the batch, or any ``jax.shard_map``. None: of ``input`` alone.

    Returns:
      ``(output, running_mean, running_var)`` in the dtypes of what came in, computed in at
      least float32; the last two are unchanged in evaluation.

    Raises:
      ValueError: one value per channel in training, whose variance is not defined; or
        evaluation without running statistics.

    References:
      Ioffe and Szegedy, `Batch Normalization <https://arxiv.org/abs/1502.03167>`_, 2015.
    """
    axis = axis % input.ndim
    n = math.prod(input.shape[:axis] + input.shape[axis + 1 :])
    if training and n * _replicas(axis_name) < 2:
        raise ValueError(
            f"training needs more than one value per channel; input of shape "
            f"{input.shape} has {n}. Use a larger batch, or training=False."
        )
    output, _, _, mean, var = native_batch_norm(
        input,
        running_mean,
        running_var,
        weight,
        bias,
        training,
        momentum,
        eps,
        axis=axis,
        axis_name=axis_name,
    )
    return output, mean, var


def native_batch_norm(
    input: jax.Array,
    running_mean: jax.Array | None,
    running_var: jax.Array | None,
    weight: jax.Array | None,
    bias: jax.Array | None,
    training: bool,
    momentum: float,
    eps: float,
    *,
    axis: int = 1,
    axis_name: AxisName = None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array | None, jax.Array | None]:
    """``batch_norm`` with what PyTorch keeps for the backward pass.

    Returns:
      ``(output, mean, rstd, running_mean, running_var)``; the mean of the batch and
      :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`, without a derivative, are empty in
      evaluation.
    """
    kept = input.dtype if weight is None else weight.dtype
    saved_mean = saved_rstd = jnp.zeros(0, kept)
    if input.ndim < 2:  # an empty batch, as it is
        return input, saved_mean, saved_rstd, running_mean, running_var
    reduced = tuple(i for i in range(input.ndim) if i != axis)
    x = input.astype(wide(input.dtype))

    def along_axis(v_C):
        return jnp.expand_dims(v_C.astype(x.dtype), reduced)

    if training:
        n = math.prod(input.shape[i] for i in reduced) * _replicas(axis_name)
        output, *statistics = standardize(x, reduced, eps, axis_name)
        mean, var = (jax.lax.stop_gradient(s).reshape(-1) for s in statistics)
        unbiased = var * (n / (n - 1) if n > 1 else math.nan)
        running_mean = _moved_towards(mean, running_mean, momentum)
        running_var = _moved_towards(unbiased, running_var, momentum)
        saved_mean = mean.astype(kept)
        saved_rstd = (1 / jnp.sqrt(var + eps)).astype(kept)
    elif running_mean is None or running_var is None:
        raise ValueError("evaluation needs running_mean and running_var; one is None.")
    else:
        output = (x - along_axis(running_mean)) / jnp.sqrt(along_axis(running_var) + eps)

    if weight is not None:
        output = output * along_axis(weight)
    if bias is not None:
        output = output + along_axis(bias)
    return output.astype(input.dtype), saved_mean, saved_rstd, running_mean, running_var


def _moved_towards(new: jax.Array, running: jax.Array | None, momentum: float):
    """The running statistic in its own dtype; None stays None."""
    if running is None:
        return None
    moved = (1.0 - momentum) * running.astype(new.dtype) + momentum * new
    return moved.astype(running.dtype)


def _replicas(axis_name: AxisName) -> int:
    return 1 if axis_name is None else jax.lax.axis_size(axis_name)

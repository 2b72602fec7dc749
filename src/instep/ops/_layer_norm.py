"""Normalisations of one sample by its own statistics.

Shapes and dtypes: floating ``(N, C, ...)``, or any shape whose last axes are normalised; the
result has the dtype of ``input``, and so have statistics without a ``weight``, else its dtype.

Raises:
  ValueError: ``normalized_shape`` is not the last axes of ``input``, or ``num_groups`` does not
    divide its channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .._dtypes import wide
from ._norm import batch_norm
from ._standardize import rescale, standardize


def layer_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """``torch.nn.functional.layer_norm``.

    .. math:: y = \\frac{x - \\mu}{\\sqrt{\\sigma^2 + \\epsilon}} w + b

    with the mean and the biased variance over the last axes.

    Args:
      input: :math:`x`, its last axes of ``normalized_shape``.
      normalized_shape: lengths of the axes that are normalised.
      weight, bias: :math:`w, b`, shape ``normalized_shape``, or None.
      eps: :math:`\\epsilon`.

    Returns:
      Shape and dtype of ``input``, computed in at least float32.

    References:
      Ba, Kiros and Hinton, `Layer Normalization <https://arxiv.org/abs/1607.06450>`_, 2016.
    """
    return native_layer_norm(input, normalized_shape, weight, bias, eps)[0]


def native_layer_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None,
    bias: jax.Array | None,
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.native_layer_norm``: ``layer_norm``, mean and inverse deviation.

    It is :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`. The last two have no derivative; their
    normalised axes are of length 1.
    """
    normed = _last_axes(input, normalized_shape)
    x, mean, var = standardize(input.astype(wide(input.dtype)), normed, eps)
    output = _affine(x, weight, bias, keep=normed).astype(input.dtype)
    kept = input.dtype if weight is None else weight.dtype
    mean, var = jax.lax.stop_gradient((mean, var))
    return output, mean.astype(kept), (1 / jnp.sqrt(var + eps)).astype(kept)


def rms_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None = None,
    eps: float | None = None,
) -> jax.Array:
    """``torch.nn.functional.rms_norm``.

    .. math:: y = \\frac{x}{\\sqrt{\\operatorname{mean}(x^2) + \\epsilon}} w

    Args:
      input: :math:`x`, its last axes of ``normalized_shape``.
      normalized_shape: lengths of the axes that are normalised.
      weight: :math:`w`, shape ``normalized_shape``, or None.
      eps: :math:`\\epsilon`; None is the machine epsilon of the dtype that is computed in,
        float32 for float16 and bfloat16.

    Returns:
      Shape and dtype of ``input``, computed in at least float32.

    References:
      Zhang and Sennrich, `Root Mean Square Layer Normalization
      <https://arxiv.org/abs/1910.07467>`_, 2019.
    """
    return fused_rms_norm(input, normalized_shape, weight, eps)[0]


def fused_rms_norm(
    input: jax.Array,
    normalized_shape: Sequence[int],
    weight: jax.Array | None,
    eps: float | None,
) -> tuple[jax.Array, jax.Array]:
    """``torch._fused_rms_norm``: ``rms_norm``, and what it multiplies by.

    It is :math:`1 / \\sqrt{\\operatorname{mean}(x^2) + \\epsilon}`, in at least float32.
    """
    normed = _last_axes(input, normalized_shape)
    x = input.astype(wide(input.dtype))
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    x, scale = rescale(x, normed, eps)
    return _affine(x, weight, None, keep=normed).astype(input.dtype), scale


def group_norm(
    input: jax.Array,
    num_groups: int,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """``torch.nn.functional.group_norm``: each group of channels of each sample.

    Args:
      input: shape ``(N, C, ...)``.
      num_groups: a divisor of C.
      weight, bias: shape ``(C,)``, or None.
      eps: added to the biased variance.

    Returns:
      Shape and dtype of ``input``, computed in at least float32.

    Raises:
      ValueError: ``num_groups`` does not divide the channels.

    References:
      Wu and He, `Group Normalization <https://arxiv.org/abs/1803.08494>`_, 2018.
    """
    return native_group_norm(input, num_groups, weight, bias, eps)[0]


def native_group_norm(
    input: jax.Array,
    num_groups: int,
    weight: jax.Array | None,
    bias: jax.Array | None,
    eps: float,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``torch.native_group_norm``: ``group_norm``, mean and inverse deviation.

    It is :math:`1 / \\sqrt{\\sigma^2 + \\epsilon}`. The last two are ``(N, num_groups)``.
    """
    N, C, *space = input.shape
    if C % num_groups:
        raise ValueError(f"{C} channels are not divisible into {num_groups=}.")
    x = input.astype(wide(input.dtype)).reshape(N, num_groups, C // num_groups, *space)
    x, mean, var = standardize(x, tuple(range(2, x.ndim)), eps)
    output = _affine(x.reshape(input.shape), weight, bias, keep=(1,))
    kept = input.dtype if weight is None else weight.dtype
    mean, rstd = (
        s.astype(kept).reshape(N, num_groups) for s in (mean, 1 / jnp.sqrt(var + eps))
    )
    return output.astype(input.dtype), mean, rstd


def instance_norm(
    input: jax.Array,
    running_mean: jax.Array | None = None,
    running_var: jax.Array | None = None,
    weight: jax.Array | None = None,
    bias: jax.Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """``torch.nn.functional.instance_norm``, returning the running statistics it rewrites.

    The running statistics move towards the mean over the samples of those of each sample,
    the variance unbiased.

    Args:
      input: shape ``(N, C, ...)``.
      running_mean, running_var: shape ``(C,)``, or None.
      weight, bias: shape ``(C,)``, or None.
      use_input_stats: normalise with the statistics of each channel of each sample, and not
        with the running ones.
      momentum: share of the new statistics.
      eps: added to the variance.

    Returns:
      ``(output, running_mean, running_var)`` in the dtypes of what came in, computed in at
      least float32; the last two are unchanged without ``use_input_stats``.

    References:
      Ulyanov, Vedaldi and Lempitsky, `Instance Normalization
      <https://arxiv.org/abs/1607.08022>`_, 2016.
    """
    N, C = input.shape[:2]
    repeated = (
        None if v is None else jnp.tile(v, N) for v in (running_mean, running_var, weight, bias)
    )
    output, *moved = batch_norm(
        input.reshape(1, N * C, *input.shape[2:]),
        *repeated,
        training=use_input_stats,
        momentum=momentum,
        eps=eps,
    )
    mean, var = (None if m is None else jnp.mean(m.reshape(N, C), 0) for m in moved)
    return output.reshape(input.shape), mean, var


def _last_axes(input, shape):
    shape = tuple(shape)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ValueError(
            f"normalized_shape={list(shape)} must be the last axes of input of shape "
            f"{list(input.shape)}."
        )
    return tuple(range(input.ndim - len(shape), input.ndim))


def _affine(x, weight, bias, keep):
    """``x * weight + bias``, whose axes are the axes ``keep`` of ``x``."""
    others = tuple(i for i in range(x.ndim) if i not in keep)
    if weight is not None:
        x = x * jnp.expand_dims(weight.astype(x.dtype), others)
    if bias is not None:
        x = x + jnp.expand_dims(bias.astype(x.dtype), others)
    return x

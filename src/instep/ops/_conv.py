"""Convolution."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._elementwise import computing
from ._windows import Ints, batched, per_axis


def conv1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """``torch.nn.functional.conv1d``: ``conv2d`` with one axis of space."""
    return conv(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """``torch.nn.functional.conv2d``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, floating.
      weight: shape ``(O, C / groups, kH, kW)``, of the dtype of ``input``.
      bias: shape ``(O,)``, or None.
      stride, dilation: one integer, or one for each axis.
      padding: zeros on both sides, one integer or one for each axis; "valid" for none; "same"
        for an output as large as the input: where that takes an odd number, the last one comes
        after.
      groups: of channels; each group makes ``O / groups`` of the output's.

    Returns:
      Shape ``(N, O, ...)``, or ``(O, ...)``, of the dtype of ``input``.

    Raises:
      ValueError: the shapes do not fit, or "same" comes with a stride.
    """
    return conv(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints | str = 0,
    dilation: Ints = 1,
    groups: int = 1,
) -> jax.Array:
    """``torch.nn.functional.conv3d``: ``conv2d`` with three axes of space."""
    return conv(3, input, weight, bias, stride, padding, dilation, groups)


def conv_tbc(input: jax.Array, weight: jax.Array, bias: jax.Array, pad: int = 0) -> jax.Array:
    """``torch.conv_tbc``: ``conv1d`` of time by batch by channels.

    Args:
      input: shape ``(T, B, C)``, floating.
      weight: shape ``(k, C, O)``.
      bias: shape ``(O,)``.
      pad: zeros before and after.
    """
    return lax.conv_general_dilated(
        input, weight, (1,), [(pad, pad)], dimension_numbers=("WNC", "WIO", "WNC")
    ) + bias.reshape(1, 1, -1)


def conv(n, input, weight, bias, stride, padding, dilation, groups) -> jax.Array:
    """``conv2d`` with ``n`` axes of space."""
    x, alone = batched(input, n, f"conv{n}d")
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups:
        raise ValueError(
            f"weight of shape {weight.shape} takes {weight.shape[1]} channels in each of "
            f"{groups} groups; input of shape {input.shape} has {x.shape[1]}."
        )
    strides, dilations = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
    y = lax.conv_general_dilated(
        x,
        weight,
        window_strides=strides,
        padding=_sides(padding, weight.shape[2:], strides, dilations),
        rhs_dilation=dilations,
        feature_group_count=groups,
    )
    y = plus_bias(y, bias)
    return y[0] if alone else y


def plus_bias(y: jax.Array, bias: jax.Array | None) -> jax.Array:
    """``y`` of shape ``(N, O, ...)`` and ``bias`` of shape ``(O,)``."""
    if bias is None:
        return y
    # In at least float32, and so is the sum that the gradient of the bias is.
    dtype = computing(y.dtype)
    bias = jnp.expand_dims(bias.astype(dtype), (0, *range(2, y.ndim)))
    return (y.astype(dtype) + bias).astype(y.dtype)


def _sides(padding, sizes, strides, dilations) -> list[tuple[int, int]]:
    """How many zeros come before and after, along each axis."""
    if padding == "same":
        if max(strides) > 1:
            raise ValueError(f'padding="same" takes no stride, which is {strides} here.')
        totals = [d * (k - 1) for d, k in zip(dilations, sizes, strict=True)]
        return [(total // 2, total - total // 2) for total in totals]
    if padding == "valid":
        padding = 0
    if isinstance(padding, str):
        raise ValueError(f"{padding=} must be 'same', 'valid' or integers.")
    return [(p, p) for p in per_axis(padding, len(sizes), "padding")]

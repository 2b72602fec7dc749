"""Transposed convolution: the gradient of a convolution by its input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._conv import plus_bias
from ._windows import Ints, batched, per_axis


def conv_transpose1d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """``torch.nn.functional.conv_transpose1d``: ``conv_transpose2d`` with one axis."""
    return conv_transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose2d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """``torch.nn.functional.conv_transpose2d``.

    Args:
      input: shape ``(N, C, H, W)`` or ``(C, H, W)``, floating.
      weight: shape ``(C, O / groups, kH, kW)``, of the dtype of ``input``.
      bias: shape ``(O,)``, or None.
      stride, dilation: one integer, or one for each axis.
      padding: what is left away on both sides of the output.
      output_padding: what is added after the output, to choose one of the sizes that a
        convolution with this stride maps to the size of ``input``.
      groups: of channels.

    Returns:
      Shape ``(N, O, ...)``, or ``(O, ...)``, of the dtype of ``input``; along each axis,
      ``(H - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1``.

    Raises:
      ValueError: the shapes do not fit, or ``output_padding`` is not smaller than ``stride``
        or ``dilation``.
    """
    return conv_transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose3d(
    input: jax.Array,
    weight: jax.Array,
    bias: jax.Array | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> jax.Array:
    """``torch.nn.functional.conv_transpose3d``: ``conv_transpose2d`` with three axes."""
    return conv_transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def conv_transpose(
    n, input, weight, bias, stride, padding, output_padding, groups, dilation
) -> jax.Array:
    """``conv_transpose2d`` with ``n`` axes of space."""
    x, alone = batched(input, n, f"conv_transpose{n}d")
    if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise ValueError(
            f"weight of shape {weight.shape} takes {weight.shape[0]} channels in {groups} "
            f"groups; input of shape {input.shape} has {x.shape[1]}."
        )
    strides, dilations = per_axis(stride, n, "stride"), per_axis(dilation, n, "dilation")
    extras = per_axis(output_padding, n, "output_padding")
    sizes = weight.shape[2:]
    if any(e >= max(s, d) for e, s, d in zip(extras, strides, dilations, strict=True)):
        raise ValueError(f"{output_padding=} must be smaller than {stride=} or {dilation=}.")
    sides = []
    for k, p, d, e in zip(
        sizes, per_axis(padding, n, "padding"), dilations, extras, strict=True
    ):
        sides.append((d * (k - 1) - p, d * (k - 1) - p + e))
    y = lax.conv_general_dilated(
        x,
        _as_of_convolution(weight, groups),
        window_strides=(1,) * n,
        padding=sides,
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=groups,
    )
    y = plus_bias(y, bias)
    return y[0] if alone else y


def _as_of_convolution(weight: jax.Array, groups: int) -> jax.Array:
    """``(C, O / groups, ...)`` as ``(O, C / groups, ...)``, turned around in space."""
    channels, made, *sizes = weight.shape
    w = weight.reshape(groups, channels // groups, made, *sizes)
    w = jnp.swapaxes(w, 1, 2).reshape(groups * made, channels // groups, *sizes)
    return jnp.flip(w, range(2, w.ndim))

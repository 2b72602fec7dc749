"""Convolution, pooling, padding and resampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .... import ops


def _convolution(
    input, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *flags
):
    n = weight.ndim - 2
    if transposed:
        function = (ops.conv_transpose1d, ops.conv_transpose2d, ops.conv_transpose3d)[n - 1]
        return function(input, weight, bias, stride, padding, output_padding, groups, dilation)
    function = (ops.conv1d, ops.conv2d, ops.conv3d)[n - 1]
    return function(input, weight, bias, stride, padding, dilation, groups)


CONVOLUTIONS: dict[str, Callable[..., Any]] = {
    "conv1d": ops.conv1d,
    "conv2d": ops.conv2d,
    "conv3d": ops.conv3d,
    "conv_tbc": ops.conv_tbc,
    "conv_transpose1d": ops.conv_transpose1d,
    "conv_transpose2d": ops.conv_transpose2d,
    "conv_transpose3d": ops.conv_transpose3d,
    "convolution": _convolution,
    "_convolution": _convolution,  # more flags, all of cuDNN
}

ATEN: dict[str, Callable[..., Any]] = {**CONVOLUTIONS}

"""Convolution, pooling, padding and resampling."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

POOLS: dict[str, Callable[..., Any]] = {
    "avg_pool1d": ops.avg_pool1d,
    "avg_pool2d": ops.avg_pool2d,
    "avg_pool3d": ops.avg_pool3d,
    "max_pool1d": ops.max_pool1d,
    "max_pool2d": ops.max_pool2d,
    "max_pool3d": ops.max_pool3d,
    "max_pool1d_with_indices": partial(ops.max_pool1d, return_indices=True),
    "max_pool2d_with_indices": partial(ops.max_pool2d, return_indices=True),
    "max_pool3d_with_indices": partial(ops.max_pool3d, return_indices=True),
    "adaptive_avg_pool1d": ops.adaptive_avg_pool1d,
    "adaptive_avg_pool2d": ops.adaptive_avg_pool2d,
    "adaptive_avg_pool3d": ops.adaptive_avg_pool3d,
    "_adaptive_avg_pool2d": ops.adaptive_avg_pool2d,
    "_adaptive_avg_pool3d": ops.adaptive_avg_pool3d,
    "adaptive_max_pool1d": partial(ops.adaptive_max_pool1d, return_indices=True),
    "adaptive_max_pool2d": partial(ops.adaptive_max_pool2d, return_indices=True),
    "adaptive_max_pool3d": partial(ops.adaptive_max_pool3d, return_indices=True),
    "fractional_max_pool2d": ops.fractional_max_pool,
    "fractional_max_pool3d": ops.fractional_max_pool,
    "max_unpool2d": ops.max_unpool,
    "max_unpool3d": lambda input, indices, size, *_: ops.max_unpool(input, indices, size),
}


def _padding(mode: str) -> Callable[..., Any]:
    return lambda input, pad: ops.pad(input, pad, mode)


PADS: dict[str, Callable[..., Any]] = {
    "pad": ops.pad,
    "constant_pad_nd": lambda input, pad, value: ops.pad(input, pad, value=value),
    "_pad_circular": _padding("circular"),
    **dict.fromkeys((f"reflection_pad{n}d" for n in (1, 2, 3)), _padding("reflect")),
    **dict.fromkeys((f"replication_pad{n}d" for n in (1, 2, 3)), _padding("replicate")),
}

PATCHES: dict[str, Callable[..., Any]] = {
    "im2col": ops.unfold,
    "col2im": ops.fold,
    "pixel_shuffle": ops.pixel_shuffle,
    "pixel_unshuffle": ops.pixel_unshuffle,
    "channel_shuffle": ops.channel_shuffle,
    "native_channel_shuffle": ops.channel_shuffle,
}


def _upsample(mode: str, antialias: bool = False) -> Callable[..., Any]:
    """Both overloads; modes of nearest elements have no ``align_corners`` in their schemas."""

    def by_size(input, output_size, *rest):
        align_corners, *scales = (False, *rest) if mode.startswith("nearest") else rest
        return ops.resize(input, output_size, scales, mode, align_corners, antialias)

    return by_size


def _upsample_vec(mode: str, antialias: bool = False) -> Callable[..., Any]:
    def by_size_or_factors(input, output_size, *rest):
        align_corners, factors = (False, *rest) if mode.startswith("nearest") else rest
        return ops.interpolate(
            input, output_size, factors, mode, align_corners, antialias=antialias
        )

    return by_size_or_factors


UPSAMPLED = {
    **{f"upsample_nearest{n}d": ("nearest",) for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": ("nearest-exact",) for n in (1, 2, 3)},
    "upsample_linear1d": ("linear",),
    "upsample_bilinear2d": ("bilinear",),
    "upsample_trilinear3d": ("trilinear",),
    "upsample_bicubic2d": ("bicubic",),
    "_upsample_bilinear2d_aa": ("bilinear", True),
    "_upsample_bicubic2d_aa": ("bicubic", True),
    "_upsample_lanczos2d_aa": ("lanczos", True),
}
RESIZED: dict[str, Callable[..., Any]] = {
    **{name: _upsample(*mode) for name, mode in UPSAMPLED.items()},
    **{f"{name}.vec": _upsample_vec(*mode) for name, mode in UPSAMPLED.items()},
}


def _grid_sampler(input, grid, interpolation_mode, padding_mode, align_corners):
    mode = ("bilinear", "nearest", "bicubic")[interpolation_mode]
    padding = ("zeros", "border", "reflection")[padding_mode]
    return ops.grid_sample(input, grid, mode, padding, align_corners)


SAMPLED: dict[str, Callable[..., Any]] = {
    "grid_sampler": _grid_sampler,
    "grid_sampler_2d": _grid_sampler,
    "grid_sampler_3d": _grid_sampler,
    "affine_grid_generator": ops.affine_grid,
}

ATEN: dict[str, Callable[..., Any]] = {
    **CONVOLUTIONS,
    **POOLS,
    **PADS,
    **PATCHES,
    **RESIZED,
    **SAMPLED,
}

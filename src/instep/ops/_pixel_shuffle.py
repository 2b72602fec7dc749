"""Channels moved to space, and between groups."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pixel_shuffle(input: jax.Array, upscale_factor: int) -> jax.Array:
    """``torch.nn.functional.pixel_shuffle``.

    Args:
      input: shape ``(..., C r r, H, W)``, any dtype.
      upscale_factor: :math:`r`.

    Returns:
      Shape ``(..., C, H r, W r)``.

    Raises:
      ValueError: the channels are not a multiple of :math:`r^2`.

    References:
      Shi et al., `Real-Time Single Image and Video Super-Resolution Using an Efficient
      Sub-Pixel Convolutional Neural Network <https://arxiv.org/abs/1609.05158>`_, 2016.
    """
    *leading, channels, h, w = input.shape
    r = upscale_factor
    if r < 1 or channels % (r * r):
        raise ValueError(f"{upscale_factor=} squared must divide {channels} channels.")
    c, n = channels // (r * r), len(leading)
    x = input.reshape(*leading, c, r, r, h, w)
    x = x.transpose(*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    return x.reshape(*leading, c, h * r, w * r)


def pixel_unshuffle(input: jax.Array, downscale_factor: int) -> jax.Array:
    """``torch.nn.functional.pixel_unshuffle``, which undoes ``pixel_shuffle``.

    Args:
      input: shape ``(..., C, H r, W r)``, any dtype.
      downscale_factor: :math:`r`.

    Returns:
      Shape ``(..., C r r, H, W)``.

    Raises:
      ValueError: height or width is not a multiple of :math:`r`.
    """
    *leading, c, h, w = input.shape
    r, n = downscale_factor, len(leading)
    if r < 1 or h % r or w % r:
        raise ValueError(f"{downscale_factor=} must divide the height {h} and the width {w}.")
    x = input.reshape(*leading, c, h // r, r, w // r, r)
    x = x.transpose(*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    return x.reshape(*leading, c * r * r, h // r, w // r)


def channel_shuffle(input: jax.Array, groups: int) -> jax.Array:
    """``torch.nn.functional.channel_shuffle``: the first of every group, the second, ...

    Args:
      input: shape ``(N, C, ...)``, any dtype.
      groups: of channels.

    Raises:
      ValueError: the channels are not a multiple of ``groups``.
    """
    n, c, *space = input.shape
    if groups < 1 or c % groups:
        raise ValueError(f"{groups=} must divide {c} channels.")
    x = input.reshape(n, groups, c // groups, *space)
    return jnp.swapaxes(x, 1, 2).reshape(input.shape)

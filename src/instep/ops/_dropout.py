"""Dropout of elements or of whole channels, given what to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax


def dropout(input: jax.Array, kept: jax.Array, p: float = 0.5) -> jax.Array:
    """``torch.nn.functional.dropout`` in training, of elements that were drawn.

    .. math:: y = x \\frac{m}{1 - p}

    Args:
      input: :math:`x`, any shape, floating.
      kept: :math:`m`, booleans that are true with probability 1 - p, the shape of ``input``;
        or ``feature_shape`` of it, for ``dropout1d``, ``dropout2d`` and ``dropout3d``.
      p: probability of an element to become zero.

    Raises:
      ValueError: ``p`` is no probability.

    References:
      Srivastava et al., `Dropout: A Simple Way to Prevent Neural Networks from Overfitting
      <https://jmlr.org/papers/v15/srivastava14a.html>`_, 2014.
    """
    _check(p)
    noise = kept.astype(input.dtype)
    return input * (noise if p == 1 else noise / (1 - p))


def alpha_dropout(input: jax.Array, kept: jax.Array, p: float = 0.5) -> jax.Array:
    """``torch.nn.functional.alpha_dropout`` in training, of elements that were drawn.

    What is dropped becomes the lower limit of SELU, and then mean and variance are restored.

    Args:
      input: any shape, floating.
      kept: as for ``dropout``; of ``feature_shape`` for ``feature_alpha_dropout``.
      p: probability of an element to be dropped.

    Raises:
      ValueError: ``p`` is no probability.

    References:
      Klambauer et al., `Self-Normalizing Neural Networks
      <https://arxiv.org/abs/1706.02515>`_, 2017.
    """
    _check(p)
    if p == 1:
        return input * 0
    alpha = 1.7580993408473766
    a = 1 / math.sqrt((alpha * alpha * p + 1) * (1 - p))
    noise = kept.astype(input.dtype)
    return input * (noise * a) + ((noise - 1) * (alpha * a) + alpha * a * p)


def feature_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of what ``torch.nn.functional.dropout2d`` draws: ``(N, C, 1, ...)``.

    Args:
      shape: ``(N, C, ...)``.

    Raises:
      ValueError: fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"channels are dropped of shape (N, C, ...), not {tuple(shape)}.")
    return (*shape[:2], *[1] * (len(shape) - 2))


def _check(p):
    if not 0 <= p <= 1:
        raise ValueError(f"{p=} must be a probability, from 0 to 1.")

"""Hinge loss over classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ._labels import checked_labels, class_weight, label_weight, pick
from ._reduce import check_reduction, reduce


def multi_margin_loss(
    input: jax.Array,
    target: jax.Array,
    p: int = 1,
    margin: float = 1.0,
    weight: jax.Array | None = None,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.multi_margin_loss``.

    .. math:: \\ell_i = \\frac{w_{y_i}}{C} \\sum_{c \\ne y_i}
                \\max(0, \\text{margin} - x_{i y_i} + x_{ic})^p

    At the kink the gradient is 0.

    Args:
      input: scores :math:`x`, shape ``(C,)`` or ``(N, C)``, floating.
      target: class labels :math:`y`, integers, shape ``()`` or ``(N,)``.
      p: 1 or 2.
      margin: by how much the score of the label is to exceed the others.
      weight: :math:`w`, shape ``(C,)``.
      reduction: ``"mean"`` divides by :math:`N`, with ``weight`` as well; ``"sum"``;
        ``"none"`` keeps the shape of ``target``.

    Returns:
      Shape (), or that of ``target`` for ``"none"``; the dtype of ``input``. PyTorch has no
      second gradient.

    Raises:
      TypeError: ``input`` is not floating.
      ValueError: shapes do not fit, another ``p`` or ``reduction``, or a label out of range.
        Where JAX traces the labels (``jit``, ``vmap``) the loss is NaN instead; see
        ``checked``.

    References:
      Crammer and Singer, `On the Algorithmic Implementation of Multiclass Kernel-based
      Vector Machines <https://jmlr.org/papers/v2/crammer01a.html>`_, 2001.
    """
    check_reduction(reduction)
    if p not in (1, 2):
        raise ValueError(f"p must be 1 or 2; got {p}.")
    dtype, [x] = promoted(input=input)
    shape = np.shape(target)
    x_NC = x if x.ndim == 2 else x.reshape(1, -1)
    y = target if x.ndim == 2 else np.reshape(target, -1)
    classes = x_NC.shape[1]
    if not classes:
        raise ValueError(f"input of shape {x.shape} has no classes.")
    y = checked_labels("target", y, x_NC.shape, axis=1)
    w = label_weight(y, class_weight(weight, classes, x.dtype), ignore_index=None)
    z = margin - pick(x_NC, y, ignore_index=None, axis=1)[:, None] + x_NC
    others = jnp.arange(classes)[None] != y[:, None]
    hinge = jnp.where(others & (z > 0), z, 0) ** p
    losses = w * jnp.sum(hinge, 1) / classes
    return reduce(losses.reshape(shape), reduction, dtype)

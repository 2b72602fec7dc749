"""Hinge loss over classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ._labels import check_labels, class_weight, label_weight, pick, wide_index
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
      ValueError: shapes do not fit, another ``p`` or ``reduction``, or a label out of range;
        inside ``jax.jit`` the loss is then NaN, see ``checked``.

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
    y = wide_index(target if x.ndim == 2 else target.reshape(-1))
    classes = x_NC.shape[1]
    check_labels(y, x_NC.shape, 1, ignore_index=None)
    w = label_weight(y, class_weight(weight, classes, x.dtype), None)
    z = margin - pick(x_NC, y, None, 1)[:, None] + x_NC
    others = jnp.arange(classes)[None] != y[:, None]
    hinge = jnp.where(others & (z > 0), z, 0) ** p
    losses = w * jnp.sum(hinge, 1) / classes
    return reduce(losses.reshape(shape), reduction, dtype)

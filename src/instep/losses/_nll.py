"""Negative log likelihood of class labels."""

from __future__ import annotations

import jax

from .._dtypes import promoted
from ._labels import checked_labels, class_axis, class_weight, label_weight, pick
from ._reduce import check_reduction, reduce


def nll_loss(
    input: jax.Array,
    target: jax.Array,
    weight: jax.Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> jax.Array:
    """``torch.nn.functional.nll_loss``.

    .. math:: \\ell_i = -w_{y_i} x_{i, y_i}

    Args:
      input: log probabilities :math:`x`, shape ``(C,)``, ``(N, C)`` or
        ``(N, C, d1, ..., dk)``, floating.
      target: class labels :math:`y`, integers of shape ``()``, ``(N,)`` or
        ``(N, d1, ..., dk)``.
      weight: :math:`w`, shape ``(C,)``.
      ignore_index: label that contributes neither loss nor weight.
      reduction: ``"mean"`` divides by :math:`\\sum_i w_{y_i}` over the labels that are not
        ignored; ``"sum"``; ``"none"`` keeps the shape of ``target``.

    Returns:
      Shape (), or that of ``target`` for ``"none"``; the dtype of ``input``. If every label
      is ignored, or their weights are 0, the mean is NaN.

    Raises:
      TypeError: ``input`` is not floating, or ``target`` not of integers.
      ValueError: shapes do not fit, another ``reduction``, or a label that is neither
        ``ignore_index`` nor in [0, C). Where JAX traces the labels (``jit``, ``vmap``) such a
        label makes the loss and its gradient NaN; see ``checked``.
    """
    check_reduction(reduction)
    dtype, [logp] = promoted(input=input)
    axis = class_axis(logp.ndim)
    target = checked_labels("target", target, logp.shape, axis, ignore_index)
    w_C = class_weight(weight, logp.shape[axis], logp.dtype)
    w = label_weight(target, w_C, ignore_index)
    return reduce(-w * pick(logp, target, ignore_index, axis), reduction, dtype, w)

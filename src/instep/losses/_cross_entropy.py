"""Cross entropy over classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import promoted
from ..ops import log_softmax
from ._labels import (
    along,
    check_labels,
    class_axis,
    class_weight,
    is_ignored,
    label_weight,
    pick,
)
from ._reduce import check_reduction, reduce


def cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    weight: jax.Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> jax.Array:
    """``torch.nn.functional.cross_entropy``.

    .. math:: \\ell_i = -\\sum_c w_c\\, q_{ic} \\log \\operatorname{softmax}(x_i)_c, \\qquad
              q = (1 - \\varepsilon)\\, \\text{target} + \\varepsilon / C

    Args:
      logits: :math:`x`, shape ``(C,)``, ``(N, C)`` or ``(N, C, d1, ..., dk)``, floating.
      labels: class indices, integers of shape ``()``, ``(N,)`` or ``(N, d1, ..., dk)``, or
        probabilities of the shape of ``logits``, floating.
      weight: :math:`w`, shape ``(C,)``.
      ignore_index: label that contributes neither loss nor weight; for indices only.
      reduction: ``"mean"`` divides by :math:`\\sum_i w_{y_i}` over the labels that are not
        ignored, and for probabilities by the number of examples :math:`N d_1 \\cdots d_k`;
        ``"sum"``; ``"none"`` keeps the shape of the indices.
      label_smoothing: :math:`\\varepsilon` in [0, 1].

    Returns:
      Shape (), or that of the class indices for ``"none"``; the dtype of ``logits``,
      computed in at least float32. If every label is ignored the mean is NaN.

    Raises:
      ValueError: shapes do not fit, an option is out of range, or a label is neither
        ``ignore_index`` nor in [0, C). Inside ``jax.jit`` labels cannot be read: there such
        a label makes the loss and its gradient NaN, instead of being clamped to the nearest
        class; see ``checked``.

    References:
      Label smoothing: Szegedy et al., `Rethinking the Inception Architecture for Computer
      Vision <https://arxiv.org/abs/1512.00567>`_, 2016.
    """
    check_reduction(reduction)
    check_smoothing(label_smoothing)
    dtype, [x] = promoted(logits=logits)
    axis = class_axis(x.ndim)
    w_C = class_weight(weight, x.shape[axis], x.dtype)
    logp = log_softmax(x, axis)
    if jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        q = smoothed(labels, logp.shape, label_smoothing, logp.dtype, axis)
        return reduce(-jnp.sum(along(w_C, axis, x.ndim) * q * logp, axis), reduction, dtype)

    check_labels(labels, x.shape, axis, ignore_index)
    w = label_weight(labels, w_C, ignore_index)
    losses = -w * pick(logp, labels, ignore_index, axis)
    if label_smoothing:
        uniform = -jnp.sum(along(w_C, axis, x.ndim) * logp, axis)
        uniform = jnp.where(is_ignored(labels, ignore_index), 0, uniform)
        losses = (1 - label_smoothing) * losses + label_smoothing / x.shape[axis] * uniform
    return reduce(losses, reduction, dtype, w)


def smoothed(probabilities, shape, smoothing: float, dtype, axis: int) -> jax.Array:
    """The distribution that is learnt; ValueError unless it has the ``shape`` of the logits."""
    if np.shape(probabilities) != shape:
        raise ValueError(
            f"labels of dtype {jnp.result_type(probabilities)} are class probabilities and "
            f"need the shape of logits, {shape}; got {np.shape(probabilities)}. Class indices "
            f"are integers."
        )
    q = jnp.asarray(probabilities, dtype)
    return q * (1 - smoothing) + smoothing / shape[axis] if smoothing else q


def check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1]; got {label_smoothing}.")

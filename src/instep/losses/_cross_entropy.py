"""Cross entropy over classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._dtypes import wide
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
        a label makes the loss NaN, instead of being clamped to the nearest class.
    """
    check_reduction(reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1]; got {label_smoothing}.")
    dtype = jnp.result_type(logits)
    axis = 0 if np.ndim(logits) == 1 else 1
    classes = np.shape(logits)[axis]
    w_C = jnp.asarray(np.ones(classes) if weight is None else weight, wide(dtype))
    if w_C.shape != (classes,):
        raise ValueError(f"weight has shape {w_C.shape}; logits have {classes} classes.")

    logp = jax.nn.log_softmax(logits.astype(wide(dtype)), axis=axis)
    if jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        losses, terms = _from_probabilities(logp, labels, w_C, axis, label_smoothing)
    else:
        _check_indices(np.shape(logits), axis, labels, ignore_index)
        losses, terms = _from_indices(logp, labels, w_C, axis, ignore_index, label_smoothing)
    return reduce(losses, reduction, terms).astype(dtype)


def _from_indices(logp, labels, w_C, axis, ignore_index, smoothing):
    kept = labels != ignore_index
    index = jnp.where(kept, labels, 0)
    # Out of range is filled with NaN, also below zero, where JAX would count from the end.
    index = jnp.where(index < 0, logp.shape[axis], index)
    picked = jnp.take_along_axis(
        logp, jnp.expand_dims(index, axis), axis, mode="fill", fill_value=jnp.nan
    )
    w = jnp.take(w_C, index, mode="fill", fill_value=jnp.nan)
    losses = -w * picked.squeeze(axis)
    if smoothing:
        smooth = -jnp.sum(_along(w_C, axis, logp.ndim) * logp, axis)
        losses = (1.0 - smoothing) * losses + smoothing / logp.shape[axis] * smooth
    return jnp.where(kept, losses, 0.0), jnp.sum(jnp.where(kept, w, 0.0))


def _from_probabilities(logp, labels, w_C, axis, smoothing):
    if np.shape(labels) != logp.shape:
        raise ValueError(
            f"labels of dtype {jnp.result_type(labels)} are class probabilities and need the "
            f"shape of logits, {logp.shape}; got {np.shape(labels)}. Class indices are "
            f"integers."
        )
    q = labels.astype(logp.dtype)
    if smoothing:
        q = q * (1.0 - smoothing) + smoothing / logp.shape[axis]
    losses = -jnp.sum(_along(w_C, axis, logp.ndim) * q * logp, axis)
    return losses, float(losses.size)


def _along(w_C, axis, ndim):
    """Weights of the classes, broadcast against logits with the classes on ``axis``."""
    return jnp.expand_dims(w_C, [i for i in range(ndim) if i != axis])


def _check_indices(logits_shape, axis, labels, ignore_index):
    expected = logits_shape[:axis] + logits_shape[axis + 1 :]
    if np.shape(labels) != expected:
        raise ValueError(
            f"logits of shape {logits_shape} have classes on axis {axis}, so class indices "
            f"have shape {expected}; got {np.shape(labels)}."
        )
    if isinstance(labels, Tracer):
        return
    found = np.unique(np.asarray(labels))
    classes = logits_shape[axis]
    wrong = found[((found < 0) | (found >= classes)) & (found != ignore_index)]
    if wrong.size:
        raise ValueError(
            f"labels {wrong.tolist()[:10]} are out of range for {classes} classes. Labels "
            f"are 0 to {classes - 1}, or {ignore_index=}."
        )

"""Cross entropy of a linear map, without its logits."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._dtypes import promoted_dtype, wide
from ._checks import nan_unless
from ._labels import (
    check_smoothing,
    checked_labels,
    class_weight,
    is_ignored,
    label_weight,
    over_classes,
    smoothed,
)
from ._reduce import check_reduction, reduce


def linear_cross_entropy(
    input: jax.Array,
    linear_weight: jax.Array,
    target: jax.Array,
    *,
    linear_bias: jax.Array | None = None,
    weight: jax.Array | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    chunk_size: int = 1024,
) -> jax.Array:
    """``torch.nn.functional.linear_cross_entropy``, in chunks of the classes.

    The value and the gradients are those of ``cross_entropy(input @ linear_weight.T +
    linear_bias, target)``, but the logits exist for ``chunk_size`` classes at a time only:
    forward keeps a few numbers for each example and chunk, and backward computes the chunk
    again. That is one matrix product more, and :math:`N C` numbers less.

    Args:
      input: shape ``(D,)`` or ``(N, D)``, floating.
      linear_weight: shape ``(C, D)``, or ``(C, d1, ..., dk, D)`` with an input ``(N, D)``.
      target: class indices, integers of shape ``()``, ``(N,)`` or ``(N, d1, ..., dk)``, or
        probabilities of the shape that the logits would have.
      linear_bias: the shape of ``linear_weight`` without its last axis.
      weight: of the classes, shape ``(C,)``.
      reduction: as in ``cross_entropy``, and with its denominators.
      ignore_index: as in ``cross_entropy``; None is -100. An error with probabilities.
      label_smoothing: as in ``cross_entropy``.
      chunk_size: the most classes whose logits are in memory at a time. Chunks are smaller,
        by less than half, where that divides C. PyTorch chunks the examples, by ``options``.

    Returns:
      Shape (), or that of the class indices for ``"none"``; the widest dtype of the inputs.
      Logits of half precision are kept in float32, not rounded as PyTorch's.

    Raises:
      TypeError: nothing is floating.
      ValueError: as ``cross_entropy``; or ``linear_weight`` or ``linear_bias`` does not fit.

    References:
      Wijmans et al., `Cut Your Losses in Large-Vocabulary Language Models
      <https://arxiv.org/abs/2411.09009>`_, 2024.
    """
    check_reduction(reduction)
    check_smoothing(label_smoothing)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be positive; got {chunk_size}.")
    shape = _logits_shape(input, linear_weight, linear_bias)
    axis = np.ndim(input) - 1
    dtype = promoted_dtype(input=input, linear_weight=linear_weight)
    x = jnp.asarray(input, wide(dtype))
    w_C = class_weight(weight, shape[axis], x.dtype)
    classes = {"linear": jnp.asarray(linear_weight, dtype), "weight": w_C}
    if linear_bias is not None:
        classes["bias"] = jnp.asarray(linear_bias, x.dtype)

    # Logits are laid out (C, d1, ..., dk, N): classes first, examples last.
    def examples_last(a):
        return jnp.moveaxis(a, 0, -1) if axis else a

    def examples_first(a):
        return jnp.moveaxis(a, -1, 0) if axis else a

    if jnp.issubdtype(jnp.result_type(target), jnp.floating):
        if ignore_index is not None:
            raise ValueError(f"{ignore_index=} is for class indices, not for probabilities.")
        q = smoothed("target", target, shape, axis, label_smoothing, x.dtype)
        classes["share"] = examples_last(over_classes(w_C, axis, len(shape)) * q)
        losses = _losses(x, _under_shares, classes, chunk_size)
        return reduce(examples_first(losses), reduction, dtype)

    ignore_index = -100 if ignore_index is None else ignore_index
    target = checked_labels("target", target, shape, axis, ignore_index)
    ignored = is_ignored(target, ignore_index)
    w = label_weight(target, w_C, ignore_index)
    classes["index"] = jnp.arange(shape[axis])
    labels = map(examples_last, (target, w, ~ignored))
    expected = partial(_under_labels, *labels, label_smoothing, shape[axis])
    losses = examples_first(_losses(x, expected, classes, chunk_size))
    losses = jnp.where(ignored, 0, losses * nan_unless(~jnp.isnan(w)))
    return reduce(losses, reduction, dtype, w)


class _Sums(NamedTuple):
    """What the loss needs of a chunk of classes: of its logits l and their shares q.

    Each has the shape of the losses, ``(d1, ..., dk, N)``.
    """

    largest: jax.Array  # m = max l
    exp: jax.Array  # sum exp(l - m)
    share: jax.Array  # sum q
    logit: jax.Array  # sum q (l - m)


def _losses(x, expected, classes, chunk_size):
    """``sum_c q_c (log sum exp(l) - l_c)``, of logits that exist a chunk at a time."""
    sums = jax.checkpoint(partial(_sums, x, expected))
    m, exp, q, logit = _map_chunks(sums, classes, chunk_size)
    # Measured from the largest logit, as log_softmax does: a confident loss stays exact.
    below = m - jnp.max(m, 0, keepdims=True)
    log_sum_exp = jnp.log(jnp.sum(exp * jnp.exp(below), 0))
    return jnp.sum(q, 0) * log_sum_exp - jnp.sum(logit + _product(q, below), 0)


def _sums(x, expected, chunk):
    linear = chunk["linear"]
    logits = jnp.tensordot(
        linear, x.astype(linear.dtype), (-1, -1), preferred_element_type=x.dtype
    )
    if "bias" in chunk:
        bias = chunk["bias"]
        logits = logits + (bias if x.ndim == 1 else bias[..., None])
    m = lax.stop_gradient(jnp.max(logits, 0))
    below = logits - jnp.where(jnp.isneginf(m), 0, m)[None]
    return _Sums(m, jnp.sum(jnp.exp(below), 0), *expected(chunk, below))


def _under_shares(chunk, below):
    """``sum q`` and ``sum q (l - m)`` of class probabilities, which are the shares."""
    q = chunk["share"]
    return jnp.sum(q, 0), jnp.sum(q * below, 0)


def _under_labels(labels, w, kept, smoothing, num_classes, chunk, below):
    """The same of class indices: no array of the logits' size is made for the shares.

    The label has the share ``(1 - smoothing) w``, and every class ``smoothing / C`` of its
    own weight.
    """
    index = chunk["index"]
    is_label = over_classes(index, 0, below.ndim) == labels[None]
    logit = (1 - smoothing) * _product(w, jnp.sum(jnp.where(is_label, below, 0), 0))
    here = (index[0] <= labels) & (labels <= index[-1])
    q = jnp.where(here, (1 - smoothing) * w, 0)
    if smoothing:
        w_C = over_classes(chunk["weight"], 0, below.ndim) * (smoothing / num_classes)
        q = q + jnp.where(kept, jnp.sum(w_C), 0)
        logit = logit + jnp.where(kept, jnp.sum(_product(w_C, below), 0), 0)
    return q, logit


def _product(q, below):
    """``q * below``, and 0 for a logit of minus infinity that has no share in the loss."""
    return jnp.where(q == 0, 0, q * below)


def _map_chunks(fn, classes, size):
    """``fn`` of one chunk of ``classes`` after the other, stacked on a new first axis."""
    num_classes = len(classes["weight"])
    size = _even(size, num_classes)
    whole = num_classes // size * size
    chunks = jax.tree.map(
        lambda a: a[:whole].reshape(whole // size, size, *a.shape[1:]), classes
    )
    out = lax.map(fn, chunks)
    if whole == num_classes:
        return out
    rest = fn(jax.tree.map(lambda a: a[whole:], classes))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), out, rest)


def _even(size, num_classes):
    """The largest divisor of ``num_classes`` above ``size / 2``, or ``size``.

    With a remainder the whole chunks of ``linear_weight``, and of its gradient, are copied.
    """
    sizes = range(min(size, num_classes), size // 2, -1)
    return next((s for s in sizes if num_classes % s == 0), min(size, num_classes))


def _logits_shape(input, linear_weight, linear_bias):
    """``(N, C, d1, ..., dk)``, or ``(C,)``; ValueError if the three do not fit."""
    *batch, features = np.shape(input)
    *classes, columns = np.shape(linear_weight)
    unbatched = not batch and len(classes) > 1
    if features != columns or len(batch) > 1 or not classes or unbatched:
        raise ValueError(
            f"input has shape (D,) or (N, D), and linear_weight (C, D), or (C, d1, ..., dk, D) "
            f"with N examples; got {np.shape(input)} and {np.shape(linear_weight)}."
        )
    if linear_bias is not None and np.shape(linear_bias) != tuple(classes):
        raise ValueError(
            f"linear_bias has shape {np.shape(linear_bias)}; it needs {tuple(classes)}, the "
            f"shape of linear_weight without its last axis."
        )
    return (*batch, *classes)

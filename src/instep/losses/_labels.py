"""Class labels: their check, and what each picks from the classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._dtypes import dtype_of
from ._checks import check_values


def checked_labels(
    name: str, labels: Any, shape: tuple[int, ...], axis: int, ignore_index: int | None = None
) -> jax.Array:
    """Class indices that fit scores of ``shape`` with the classes on ``axis``.

    Returns:
      ``labels`` in 32 bits or more, in which a number of classes does not overflow.

    Raises:
      TypeError: not integers.
      ValueError: another shape; or out of range, if the values can be read.
    """
    expected = shape[:axis] + shape[axis + 1 :]
    if np.shape(labels) != expected:
        raise ValueError(
            f"Scores of shape {shape} have classes on axis {axis}, so {name} as class indices "
            f"have shape {expected}; got {np.shape(labels)}."
        )
    dtype = dtype_of(labels)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise TypeError(f"{name} are {dtype}; class labels are integers.")
    labels = widened(labels)
    classes = shape[axis]
    or_ignored = "" if ignore_index is None else f", or {ignore_index=}"
    check_values(
        name,
        labels,
        lambda y: ((y >= 0) & (y < classes)) | is_ignored(y, ignore_index),
        f"are out of range for {classes} classes. Labels are 0 to {classes - 1}{or_ignored}.",
    )
    return jnp.asarray(labels)


def widened(integers: Any) -> Any:
    """As the default integer: -100 is 156 as a uint8, and a number of 300 classes is 44."""
    return (integers if hasattr(integers, "astype") else np.asarray(integers)).astype(int)


def pick(scores: jax.Array, labels: Any, ignore_index: int | None, axis: int) -> jax.Array:
    """The score of every label, 0 for those that are ignored.

    Args:
      scores: classes on ``axis``, shape ``(..., C, ...)``.
      labels: integers, the shape of ``scores`` without ``axis``.
      ignore_index: None: there is none.
    """
    index = jnp.expand_dims(jnp.clip(labels, 0, scores.shape[axis] - 1), axis)
    picked = jnp.take_along_axis(scores, index, axis).squeeze(axis)
    return jnp.where(is_ignored(labels, ignore_index), 0, picked)


def label_weight(labels: Any, weight: jax.Array, ignore_index: int | None) -> jax.Array:
    """The weight of every label, 0 for those that are ignored.

    It is NaN for a label out of range, where ``checked_labels`` could not raise, and makes
    the loss and its gradient NaN.

    Args:
      labels: integers.
      weight: of the classes, shape ``(C,)``.
      ignore_index: None: there is none.
    """
    index = jnp.clip(labels, 0, weight.size - 1)
    w = jnp.where(labels == index, jnp.take(weight, index), jnp.nan)
    return jnp.where(is_ignored(labels, ignore_index), 0, w)


def is_ignored(labels: Any, ignore_index: int | None) -> Any:
    return np.array(False) if ignore_index is None else labels == ignore_index


def class_axis(ndim: int) -> int:
    """The axis of the classes: 0 of ``(C,)``, 1 of ``(N, C, d1, ..., dk)``."""
    return min(ndim - 1, 1)


def class_weight(weight: jax.Array | None, classes: int, dtype: Any) -> jax.Array:
    """``weight`` in ``dtype``, ones for None; ValueError unless there is one per class."""
    w_C = jnp.asarray(np.ones(classes) if weight is None else weight, dtype)
    if w_C.shape != (classes,):
        raise ValueError(f"weight has shape {w_C.shape}; there are {classes} classes.")
    return w_C


def over_classes(v_C: jax.Array, axis: int, ndim: int) -> jax.Array:
    """A vector over the classes, broadcast against scores with the classes on ``axis``."""
    return jnp.expand_dims(v_C, [i for i in range(ndim) if i != axis % ndim])


def smoothed(
    name: str,
    probabilities: Any,
    shape: tuple[int, ...],
    axis: int,
    smoothing: float,
    dtype: Any,
) -> jax.Array:
    """The distribution that is learnt; ValueError unless it has the ``shape`` of the logits."""
    if np.shape(probabilities) != shape:
        raise ValueError(
            f"{name} of dtype {dtype_of(probabilities)} are class probabilities and need the "
            f"shape of the logits, {shape}; got {np.shape(probabilities)}. Class indices are "
            f"integers."
        )
    q = jnp.asarray(probabilities, dtype)
    return q * (1 - smoothing) + smoothing / shape[axis] if smoothing else q


def check_smoothing(label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be in [0, 1]; got {label_smoothing}.")

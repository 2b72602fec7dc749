"""Class labels: their check, and what each picks from the classes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._checks import check_values


def pick(scores: jax.Array, labels: Any, ignore_index: int | None, axis: int) -> jax.Array:
    """The score of every label, 0 for those that are ignored.

    Args:
      scores: classes on ``axis``, shape ``(..., C, ...)``.
      labels: integers, the shape of ``scores`` without ``axis``.
      ignore_index: None: there is none.
    """
    labels = wide_index(labels)
    index = jnp.expand_dims(jnp.clip(labels, 0, scores.shape[axis] - 1), axis)
    picked = jnp.take_along_axis(scores, index, axis).squeeze(axis)
    return jnp.where(is_ignored(labels, ignore_index), 0, picked)


def label_weight(labels: Any, weight: jax.Array, ignore_index: int | None) -> jax.Array:
    """The weight of every label, 0 for those that are ignored.

    It is NaN for a label out of range, where ``check_labels`` could not raise, and makes the
    loss and its gradient NaN.

    Args:
      labels: integers.
      weight: of the classes, shape ``(C,)``.
      ignore_index: None: there is none.
    """
    labels = wide_index(labels)
    index = jnp.clip(labels, 0, weight.size - 1)
    w = jnp.where(labels == index, jnp.take(weight, index), jnp.nan)
    return jnp.where(is_ignored(labels, ignore_index), 0, w)


def is_ignored(labels: Any, ignore_index: int | None) -> Any:
    return np.array(False) if ignore_index is None else wide_index(labels) == ignore_index


def wide_index(labels: Any) -> Any:
    """``labels`` with 32 bits or more: -100 is 156 as a uint8, and 300 classes are 44."""
    narrow = jnp.dtype(jnp.result_type(labels)).itemsize < 4
    return labels.astype(int) if narrow else labels


def check_labels(
    labels: Any, shape: tuple[int, ...], axis: int, ignore_index: int | None
) -> None:
    """ValueError for class indices that do not fit scores of ``shape``, classes on ``axis``."""
    expected = shape[:axis] + shape[axis + 1 :]
    if np.shape(labels) != expected:
        raise ValueError(
            f"scores of shape {shape} have classes on axis {axis}, so class indices have "
            f"shape {expected}; got {np.shape(labels)}."
        )
    classes = shape[axis]
    or_ignored = "" if ignore_index is None else f", or {ignore_index=}"
    check_values(
        "labels",
        wide_index(labels),
        lambda y: ((y >= 0) & (y < classes)) | is_ignored(y, ignore_index),
        f"are out of range for {classes} classes. Labels are 0 to {classes - 1}{or_ignored}.",
    )


def class_axis(ndim: int) -> int:
    """The axis of the classes: 0 of ``(C,)``, 1 of ``(N, C, d1, ..., dk)``."""
    return min(ndim - 1, 1)


def class_weight(weight: jax.Array | None, classes: int, dtype: Any) -> jax.Array:
    """``weight`` in ``dtype``, ones for None; ValueError unless there is one per class."""
    w_C = jnp.asarray(np.ones(classes) if weight is None else weight, dtype)
    if w_C.shape != (classes,):
        raise ValueError(f"weight has shape {w_C.shape}; there are {classes} classes.")
    return w_C


def along(v_C: jax.Array, axis: int, ndim: int) -> jax.Array:
    """A vector over the classes, broadcast against scores with the classes on ``axis``."""
    return jnp.expand_dims(v_C, [i for i in range(ndim) if i != axis % ndim])

"""A ragged batch, padded, and what of it counts."""

from __future__ import annotations

import jax
import numpy as np

from .._batch import leading_sizes
from .._state import PyTree


def pad(batch: PyTree, size: int) -> tuple[PyTree, np.ndarray]:
    """Pad a batch to ``size`` examples, so that the step is not traced again for the last one.

    The mask says which examples are real. The loss counts those alone, and the mean is that
    over them, in one batch as in accumulated ones::

        def loss_fn(params, batch):
            (x, y), mask = batch
            loss = losses.total_and_weight(losses.cross_entropy)
            return loss(model(params, x), y, where=mask)

        loop = instep.JaxLoop(..., batches=data.mapped(lambda b: data.pad(b, 32), loader))

    By hand: ``instep.Loss((terms * mask).sum(), weight=mask.sum())``. Layers that look across
    examples, such as BatchNorm, still see the padding.

    Args:
      batch: leaves ``(n, ...)`` with the same ``n``, between 1 and ``size``, of any dtype.
      size: examples after padding.

    Returns:
      ``(batch, mask)``: leaves ``(size, ...)``, NumPy, where the last example is repeated
      (zeros could divide by zero); mask of shape (size,), bool.

    Raises:
      ValueError: the leaves have different sizes, none or more than ``size``.
    """
    sizes = leading_sizes(batch)
    n = next(iter(sizes.values()))
    if set(sizes.values()) != {n} or not 1 <= n <= size:
        raise ValueError(
            f"every leaf of the batch has the same number of examples, 1 to {size}; found "
            f"{sizes}."
        )

    def padded(leaf):
        leaf = np.asarray(leaf)
        return np.concatenate([leaf, np.repeat(leaf[-1:], size - n, axis=0)])

    return jax.tree.map(padded, batch), np.arange(size) < n

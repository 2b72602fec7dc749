"""Microbatches: one batch into k, and k into one."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ._state import PyTree
from ._trees import named_leaves


def split(batch: PyTree, k: int) -> PyTree:
    """Split a batch into ``k`` microbatches of consecutive examples.

    PyTorch: ``torch.chunk(batch, k)`` stacked, of sizes that must be equal.

    Args:
      batch: pytree whose leaves have shape ``(k * b, ...)``, of any dtype.
      k: number of microbatches, at least 1.

    Returns:
      The same pytree with leaves of shape ``(k, b, ...)``; NumPy stays NumPy, uncopied.

    Raises:
      ValueError: the leading axes differ, are absent, or are not divisible by ``k``.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1; got {k=}.")
    sizes = leading_sizes(batch)
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"the leaves of the batch have different leading sizes: {sizes}. Every leaf "
            f"needs the examples as its first axis."
        )
    size = next(iter(sizes.values()))
    if size % k:
        raise ValueError(
            f"a batch of {size} examples cannot be split into {k=} equal microbatches "
            f"({size} % {k} = {size % k}). Take {size - size % k} examples, or pad to "
            f"{size + k - size % k} and give the padding weight 0 by instep.Loss(total, "
            f"weight)."
        )
    return jax.tree.map(lambda x: x.reshape(k, size // k, *x.shape[1:]), batch)


def stack(microbatches: Sequence[PyTree]) -> PyTree:
    """Stack microbatches along a new first axis.

    PyTorch: ``torch.stack(microbatches)``, leaf by leaf.

    Args:
      microbatches: non-empty sequence of pytrees of the same structure and shapes
        ``(b, ...)``, of any dtype.

    Returns:
      One pytree with leaves of shape ``(k, b, ...)``; NumPy stays NumPy, and so becomes what
      else NumPy reads, such as a PyTorch tensor.

    Raises:
      ValueError: nothing to stack, or structures or shapes differ.
    """
    microbatches = list(microbatches)
    if not microbatches:
        raise ValueError("nothing to stack: the sequence of microbatches is empty.")
    first = {name: np.shape(leaf) for name, leaf in named_leaves(microbatches[0]).items()}
    for i, microbatch in enumerate(microbatches):
        shapes = {name: np.shape(leaf) for name, leaf in named_leaves(microbatch).items()}
        if shapes != first:
            raise ValueError(
                f"microbatch {i} has shapes {shapes}, microbatch 0 has {first}. Drop the "
                f"ragged one (DataLoader(drop_last=True)), or pad it and give the padding "
                f"weight 0 by instep.Loss(total, weight)."
            )
    return jax.tree.map(lambda *leaves: _stack(leaves), *microbatches)


def leading_sizes(batch: PyTree) -> dict[str, int]:
    """The first axis of every leaf of ``batch``, by name."""
    leaves = named_leaves(batch)
    if not leaves:
        raise ValueError(f"the batch has no leaves: {batch!r}.")
    scalars = [name for name, leaf in leaves.items() if np.ndim(leaf) == 0]
    if scalars:
        raise ValueError(
            f"leaves {scalars} of the batch are scalars and have no axis of examples. "
            f"Broadcast them to (batch size,)."
        )
    return {name: np.shape(leaf)[0] for name, leaf in leaves.items()}


def _stack(leaves):
    if any(isinstance(leaf, jax.Array) for leaf in leaves):
        return jnp.stack(leaves)
    return np.stack([np.asarray(leaf) for leaf in leaves])


def joined(microbatches: Sequence[PyTree], accumulate: int | None = None) -> PyTree:
    """Stacked, if a full window has several of them.

    Args:
      microbatches: of one window, perhaps a short one.
      accumulate: microbatches in a full window; None: as many as there are.
    """
    full = len(microbatches) if accumulate is None else accumulate
    return microbatches[0] if full == 1 else stack(microbatches)

"""The three reductions of a loss, and the two numbers that its mean divides."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np

from .._state import Loss


P = ParamSpec("P")


def total_and_weight(
    loss: Callable[P, jax.Array], where: jax.Array | None = None
) -> Callable[P, Loss]:
    """The numerator and the denominator of ``loss``'s mean, kept apart.

    ``total_and_weight(cross_entropy)(logits, labels)`` takes the arguments of
    ``cross_entropy`` and returns ``Loss(total, weight)`` with ``total / weight ==
    cross_entropy(logits, labels)``. Totals and weights of microbatches add up to those of
    the whole batch, so a ``loss_fn`` that returns them accumulates exactly however the batch
    is cut; a mean of means does not. What ``weight`` counts is in the docstring of each
    loss, under ``reduction``.

    Args:
      loss: a loss of this package, or a ``functools.partial`` of one.
      where: bool, the leading axes of ``loss(..., reduction="none")``: the terms to count.
        False marks padding; what it holds must be finite, since a gradient of NaN times zero
        is NaN, and its labels in range.

    Returns:
      The function. ``total`` and ``weight`` have shape () and at least float32; ``"mean"``,
      the default, and ``"batchmean"`` are the reductions that have a denominator. ``mean``
      takes the weight for a constant: no gradient goes through weights into it.

    Raises:
      TypeError: ``loss`` has no argument ``reduction``, or ``where`` is not bool.
      ValueError: another reduction, or ``where`` does not fit; when the function is called.
    """
    signature = inspect.signature(loss)
    if "reduction" not in signature.parameters:
        raise TypeError(
            f"{loss} has no argument 'reduction', so its denominator is not known. Give "
            f"total_and_weight the loss itself, and call what it returns."
        )
    if where is not None and not jnp.issubdtype(jnp.result_type(where), jnp.bool_):
        raise TypeError(
            f"where is {jnp.result_type(where)}; it needs bool. Write mask != 0; weights are "
            f"an argument of the loss."
        )
    default = signature.parameters["reduction"].default

    @functools.wraps(loss)
    def apart(*args: P.args, **kwargs: P.kwargs) -> Any:
        bound = signature.bind(*args, **kwargs)
        reduction = bound.arguments.get("reduction", default)
        bound.arguments["reduction"] = _Apart(reduction, where)
        return loss(*bound.args, **bound.kwargs)

    return apart


class _Apart(str):
    """The reduction of ``total_and_weight``: compares equal to the mean that it divides."""

    where: jax.Array | None
    __hash__ = None  # not a static argument of jax.jit, which would keep the first where

    def __new__(cls, reduction: str, where: jax.Array | None):
        if reduction not in ("mean", "batchmean"):
            raise ValueError(
                f"reduction={reduction!r} has no denominator; total_and_weight takes 'mean'."
            )
        self = super().__new__(cls, reduction)
        self.where = where
        return self


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum'; got {reduction!r}.")


def reduce(
    losses: jax.Array, reduction: str, dtype: Any, weights: jax.Array | None = None
) -> Any:
    """Reduce ``losses``; the mean is their sum over that of ``weights``, and 0 / 0 is NaN.

    Args:
      losses: the terms, in at least float32.
      reduction: ``"none"``, ``"mean"``, ``"sum"``; or that of ``total_and_weight``.
      dtype: of the result. Sums are taken in the dtype of ``losses``.
      weights: what each term adds to the denominator, the shape of ``losses``; None: 1.
    """
    if reduction == "none":
        return losses.astype(dtype)
    apart = isinstance(reduction, _Apart)
    if apart and reduction.where is not None:
        kept = _leading(reduction.where, losses.shape)
        losses = jnp.where(kept, losses, 0)
        weights = jnp.where(kept, jnp.ones_like(losses) if weights is None else weights, 0)
    total = jnp.sum(losses)
    # A count is a number, not a sum of ones: that would stop at 2^24 in float32.
    count = losses.size if weights is None else jnp.sum(weights)
    if apart:
        return Loss(total, jnp.asarray(count, losses.dtype))
    return (total if reduction == "sum" else total / count).astype(dtype)


def _leading(where, shape):
    """``where`` on the leading axes of ``shape``."""
    if np.shape(where) != shape[: np.ndim(where)]:
        raise ValueError(
            f"where has shape {np.shape(where)}; the terms of this loss have shape {shape}, "
            f"and where has its leading axes."
        )
    return jnp.expand_dims(where, range(np.ndim(where), len(shape)))

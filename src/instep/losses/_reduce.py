"""The three reductions of a loss, and the two numbers that its mean divides."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._state import Loss


def total_and_weight(loss: Callable[..., jax.Array]) -> Callable[..., Loss]:
    """Keep the numerator and the denominator of ``loss``'s mean apart.

    PyTorch: ``reduction="sum"`` of ``torch.nn.functional``'s losses, and a count by hand.

    ``total_and_weight(cross_entropy)(logits, labels)`` takes the arguments of
    ``cross_entropy`` and returns ``Loss(total, weight)`` with ``total / weight ==
    cross_entropy(logits, labels)``. Totals and weights of microbatches add up to those of
    the whole batch, so a ``loss_fn`` that returns them accumulates exactly however the batch
    is cut; a mean of means does not. What ``weight`` counts is in the docstring of each
    loss, under ``reduction``.

    Args:
      loss: a loss of this package, or a ``functools.partial`` of one.

    Returns:
      The function, with one argument more: ``where``, bool, the leading axes of
      ``loss(..., reduction="none")``: the terms to count. False marks padding; what it holds
      must be finite, since a gradient of NaN times zero is NaN, and its labels in range.
      ``total`` and ``weight`` have shape () and at least float32. ``"mean"``, the default,
      and ``"batchmean"`` are the reductions that have a denominator. ``instep.mean`` takes
      the weight for a constant: no gradient goes through weights into it.

    Raises:
      TypeError: ``loss`` has no argument ``reduction``; or, when the function is called,
        ``where`` is not bool.
      ValueError: another reduction, or ``where`` does not fit; when the function is called.
    """
    signature = inspect.signature(loss)
    if "reduction" not in signature.parameters:
        raise TypeError(
            f"{loss} has no argument 'reduction', so its denominator is not known. Give "
            f"total_and_weight the loss itself, and call what it returns."
        )
    default = signature.parameters["reduction"].default

    @functools.wraps(loss)
    def apart(*args: Any, where: jax.Array | None = None, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        name = bound.arguments.get("reduction", default)
        bound.arguments["reduction"] = _apart(name, where)
        return loss(*bound.args, **bound.kwargs)

    return apart


class Apart(NamedTuple):
    """The reduction of ``total_and_weight``: a mean that is not divided yet."""

    name: str  # of the mean
    where: jax.Array | None  # the terms to count


def _apart(name: str, where: jax.Array | None) -> Apart:
    if name not in ("mean", "batchmean"):
        raise ValueError(f"total_and_weight divides a mean or batchmean; got {name!r}.")
    if where is not None and not jnp.issubdtype(jnp.result_type(where), jnp.bool_):
        raise TypeError(
            f"where is {jnp.result_type(where)}; it needs bool. Write mask != 0; weights are "
            f"an argument of the loss."
        )
    return Apart(name, where)


def check_reduction(reduction: str | Apart, *names: str) -> None:
    """ValueError unless ``reduction`` is one of ``names``, by default the usual three."""
    names = names or ("none", "mean", "sum")
    name = reduction.name if isinstance(reduction, Apart) else reduction
    if name not in names:
        listed = ", ".join(map(repr, names[:-1]))
        raise ValueError(f"reduction must be {listed} or {names[-1]!r}; got {name!r}.")


def is_mean(reduction: str | Apart, name: str = "mean") -> bool:
    """Whether ``reduction`` is the mean of that name, divided or not."""
    return name == (reduction.name if isinstance(reduction, Apart) else reduction)


def reduce(
    losses: jax.Array,
    reduction: str | Apart,
    dtype: Any,
    weights: jax.Array | None = None,
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
    if isinstance(reduction, Apart) and reduction.where is not None:
        kept = _leading(reduction.where, losses.shape)
        losses = jnp.where(kept, losses, 0)
        weights = jnp.where(kept, jnp.ones_like(losses) if weights is None else weights, 0)
    total = jnp.sum(losses)
    # A count is a number, not a sum of ones: that would stop at 2^24 in float32.
    count = losses.size if weights is None else jnp.sum(weights)
    if isinstance(reduction, Apart):
        return Loss(total, jnp.asarray(count, losses.dtype))
    return (total if reduction == "sum" else total / count).astype(dtype)


def reduce_weighted(
    losses: jax.Array, reduction: str | Apart, dtype: Any, weight: jax.Array | None
) -> Any:
    """``reduce`` of ``weight * losses``, whose mean divides by the sum of ``weight``."""
    if weight is None:
        return reduce(losses, reduction, dtype)
    w = jnp.asarray(weight, losses.dtype)
    return reduce(w * losses, reduction, dtype, w)


def _leading(where, shape):
    """``where`` on the leading axes of ``shape``."""
    if np.shape(where) != shape[: np.ndim(where)]:
        raise ValueError(
            f"where has shape {np.shape(where)}; the terms of this loss have shape {shape}, "
            f"and where has its leading axes."
        )
    return jnp.expand_dims(where, range(np.ndim(where), len(shape)))

"""The three reductions of a loss."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def check_reduction(reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"reduction must be 'none', 'mean' or 'sum'; got {reduction!r}.")


def reduce(losses: jax.Array, reduction: str, denominator: jax.Array | float) -> jax.Array:
    """Reduce ``losses``; the mean is their sum over ``denominator``, and 0 / 0 is NaN."""
    if reduction == "none":
        return losses
    total = jnp.sum(losses)
    return total if reduction == "sum" else total / denominator

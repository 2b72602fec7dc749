"""Operators that Hugging Face's transformers registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def _grouped_mm(input: jax.Array, weight: jax.Array, offs: jax.Array) -> jax.Array:
    """Rows of ``input``, sorted by group, times the matrix of their group; the rest is 0.

    Args:
      input: shape ``(S, in)``.
      weight: shape ``(groups, in, out)``.
      offs: where each group ends, shape ``(groups,)``.
    """
    sizes = jnp.diff(offs, prepend=jnp.zeros(1, offs.dtype)).astype(jnp.int32)
    return lax.ragged_dot(input, weight, sizes)


TRANSFORMERS: dict[str, Callable[..., Any]] = {"grouped_mm_fallback": _grouped_mm}

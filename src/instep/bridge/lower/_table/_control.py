"""Control flow: a branch is a function of arrays that returns a tuple of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax


def _cond(
    pred: jax.Array, true_fn: Callable, false_fn: Callable, operands: Sequence[Any] = ()
) -> tuple[Any, ...]:
    """``torch.cond``."""
    return lax.cond(pred, true_fn, false_fn, *operands)


def _checkpoint(function: Callable, *operands: Any, **_: Any) -> tuple[Any, ...]:
    """``torch.utils.checkpoint`` where export keeps it: computed again in the backward pass."""
    return jax.checkpoint(function)(*operands)


HIGHER_ORDER: dict[str, Callable[..., Any]] = {
    "cond": _cond,
    "tag_activation_checkpoint": _checkpoint,
}

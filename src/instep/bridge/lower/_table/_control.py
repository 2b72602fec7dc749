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


def checkpoint(function: Callable, *operands: Any, **_: Any) -> tuple[Any, ...]:
    """``torch.utils.checkpoint``: computed again in the backward pass.

    What is known while JAX traces, such as sizes and NumPy masks, stays known inside and after.
    """
    leaves, structure = jax.tree.flatten(operands)
    traced = [x for x in leaves if isinstance(x, jax.Array)]
    known: list[Any] = []  # of the result, with None for what is traced

    def of_traced(given: Sequence[jax.Array]) -> list[jax.Array]:
        rest = iter(given)
        filled = [next(rest) if isinstance(x, jax.Array) else x for x in leaves]
        made = function(*jax.tree.unflatten(structure, filled))
        results, tree = jax.tree.flatten(made)
        known[:] = tree, [None if isinstance(x, jax.Array) else x for x in results]
        return [x for x in results if isinstance(x, jax.Array)]

    made = iter(jax.checkpoint(of_traced)(traced))
    tree, results = known
    return jax.tree.unflatten(tree, [next(made) if x is None else x for x in results])


HIGHER_ORDER: dict[str, Callable[..., Any]] = {
    "cond": _cond,
    "tag_activation_checkpoint": checkpoint,
}

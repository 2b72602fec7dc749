"""What ``jax.jit`` compiles for: shapes, dtypes and the structure of its arguments."""

from __future__ import annotations

from typing import Any

import jax

from ._state import PyTree
from ._trees import named_leaves


Signature = tuple[dict[str, str], Any]  # leaves by name, and the structure of the trees

STRONGLY_TYPED = (
    "Make every leaf strongly typed before the first step (jnp.asarray(x, dtype), "
    "instep.init_state), and every batch of one shape (drop_last, or padding)"
)


def signature(state: PyTree, batch: PyTree) -> Signature:
    """What a call of a step looks like; arrays that were donated still have it."""
    both = {"state": state, "batch": batch}
    return {n: _typed(x) for n, x in named_leaves(both).items()}, jax.tree.structure(both)


def changed(before: Signature, now: Signature) -> str:
    """``batch.0 was float32[4] and is float32[3], and 1 more leaves changed``"""
    names = [name for name, typed in now[0].items() if before[0].get(name) != typed]
    if names:
        name = names[0]
        more = f", and {len(names) - 1} more leaves changed" if len(names) > 1 else ""
        return f"{name} was {before[0].get(name, 'absent')} and is {now[0][name]}{more}"
    return "a static value in the tree of the state or the batch changed"


def _typed(leaf: Any) -> str:
    """``float32[3, 4]``, with a word on weak types."""
    aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    weak = " weakly typed" if getattr(aval, "weak_type", False) else ""
    return f"{aval.dtype}{list(aval.shape)}{weak}"

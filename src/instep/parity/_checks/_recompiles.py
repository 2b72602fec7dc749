"""A step that is compiled more than once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from ..._state import PyTree
from ..._trees import named_leaves
from ._probe import Probe


Signature = tuple[dict[str, str], Any]  # leaves by name, and the structure of the trees


def recompiles(probe: Probe) -> Iterator[str]:
    """The jitted step is compiled for the first call, and every later one looks like it.

    What a call looks like is told by tracing alone: nothing is compiled here.
    """
    state: PyTree = probe.state()
    seen: list[Signature] = []
    for n, batch in enumerate(probe.batches, 1):
        now = _described(state, batch)
        if n > 1 and now not in seen:
            yield (
                f"the step is compiled again at step {n}: {_changed(seen[-1], now)}. "
                f"Make every leaf strongly typed before the first step (jnp.asarray(x, dtype), "
                f"instep.init_state), and every batch of one shape (drop_last, or padding)"
            )
        seen.append(now)
        state, _ = jax.eval_shape(probe.step, state, batch)


def _described(state: PyTree, batch: PyTree) -> Signature:
    both = {"state": state, "batch": batch}
    return {n: _typed(x) for n, x in named_leaves(both).items()}, jax.tree.structure(both)


def _typed(leaf: Any) -> str:
    """``float32[3, 4]``, with a word on weak types."""
    aval = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    weak = " weakly typed" if getattr(aval, "weak_type", False) else ""
    return f"{aval.dtype}{list(aval.shape)}{weak}"


def _changed(before: Signature, now: Signature) -> str:
    changed = [name for name, typed in now[0].items() if before[0].get(name) != typed]
    if changed:
        name = changed[0]
        more = f", and {len(changed) - 1} more leaves changed" if len(changed) > 1 else ""
        return f"{name} was {before[0].get(name, 'absent')} and is {now[0][name]}{more}"
    return "a static value in the tree of the state or the batch changed"

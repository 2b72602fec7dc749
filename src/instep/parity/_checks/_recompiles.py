"""A step that is compiled more than once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax

from ..._state import PyTree
from ..._trees import named_leaves
from ._probe import Probe


def recompiles(probe: Probe) -> Iterator[str]:
    """The jitted step must be compiled at the first call, and never again."""
    step: Any = jax.jit(lambda state, batch: probe.step(state, batch))
    state, seen = probe.state(), []
    for n, batch in enumerate(probe.batches, 1):
        compiled = step._cache_size()
        seen.append(_described(state, batch))
        state, _ = step(state, batch)
        if n > 1 and step._cache_size() > compiled:
            yield (
                f"the step is compiled again at step {n}: {_changed(seen[-2], seen[-1])}. "
                f"Make every leaf strongly typed before the first step (jnp.asarray(x, dtype), "
                f"instep.init_state), and every batch of one shape (drop_last, or padding)"
            )


def _described(state: PyTree, batch: PyTree) -> tuple[dict[str, str], Any]:
    both = {"state": state, "batch": batch}
    return {n: _typed(x) for n, x in named_leaves(both).items()}, jax.tree.structure(both)


def _typed(leaf: Any) -> str:
    """``float32[3, 4]``, with a word on weak types."""
    aval = jax.typeof(leaf)
    weak = " weakly typed" if getattr(aval, "weak_type", False) else ""
    return f"{aval.dtype}{list(aval.shape)}{weak}"


def _changed(before: tuple[dict[str, str], Any], now: tuple[dict[str, str], Any]) -> str:
    changed = [name for name, typed in now[0].items() if before[0].get(name) != typed]
    if changed:
        name = changed[0]
        more = f", and {len(changed) - 1} more leaves changed" if len(changed) > 1 else ""
        return f"{name} was {before[0].get(name, 'absent')} and is {now[0][name]}{more}"
    if before[1] != now[1]:
        return "a static value in the tree of the state or the batch changed"
    return "no leaf changed its type, so it reads something else that does (a global setting)"

"""A step that is compiled more than once."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from ..._signature import STRONGLY_TYPED, Signature, changed, signature
from ..._state import PyTree
from ._probe import Probe


def recompiles(probe: Probe) -> Iterator[str]:
    """The jitted step is compiled for the first call, and every later one looks like it.

    What a call looks like is told by tracing alone: nothing is compiled here.
    """
    state: PyTree = probe.state()
    seen: list[Signature] = []
    for n, batch in enumerate(probe.batches, 1):
        now = signature(state, batch)
        if n > 1 and now not in seen:
            yield (
                f"the step is compiled again at step {n}: {changed(seen[-1], now)}. "
                f"{STRONGLY_TYPED}"
            )
        seen.append(now)
        state, _ = jax.eval_shape(probe.step, state, batch)

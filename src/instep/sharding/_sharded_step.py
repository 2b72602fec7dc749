"""The jitted step on a mesh."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import jax
from jax.core import Tracer
from jax.sharding import PartitionSpec as P

from .._state import Metrics, PyTree, TrainState
from ._layout import Layout, named, state_specs
from ._place import placed_batch, placed_state


class ShardedStep:
    """A jitted ``train_step(state, batch)``; what is not on the mesh is put there first."""

    def __init__(self, step: Callable[..., Any], where: Layout, accumulate: int, donate: bool):
        self.where, self.accumulate = where, accumulate
        self.jitted: Any = jax.jit(
            _constrained(step, where), donate_argnums=(0,) if donate else ()
        )

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        with self._mesh(state, batch):
            return self.jitted(*self._placed(state, batch))

    def lower(self, state: TrainState, batch: PyTree) -> Any:
        """``jax.jit(...).lower``: to look at what is compiled."""
        with self._mesh(state, batch):
            return self.jitted.lower(*self._placed(state, batch))

    def compiled(self, state: TrainState, batch: PyTree) -> tuple[Any, Any]:
        """The jaxpr and what is compiled of it; a call finds it."""
        with self._mesh(state, batch):
            traced = self.jitted.trace(*self._placed(state, batch))
            return traced.jaxpr, traced.lower().compile()

    def _cache_size(self) -> int:
        """As of ``jax.jit``."""
        return self.jitted._cache_size()

    def _mesh(self, state: TrainState, batch: PyTree) -> AbstractContextManager:
        """The mesh in force, where a caller may have set one of explicit axes."""
        leaves = jax.tree.leaves((state, batch))
        if any(isinstance(x, Tracer) for x in leaves):
            return nullcontext()  # a mesh is not set inside a trace
        return jax.set_mesh(self.where.mesh)

    def _placed(self, state: TrainState, batch: PyTree) -> tuple[TrainState, PyTree]:
        batch = placed_batch(batch, self.where, self.accumulate)
        return placed_state(state, self.where), batch


def _constrained(step: Callable[..., Any], where: Layout) -> Callable[..., Any]:
    """``step`` whose states lie as ``place`` puts them, before and after."""

    def lies(tree: PyTree, specs: PyTree) -> PyTree:
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, named(specs, where.mesh))

    def constrained(state: TrainState, batch: PyTree) -> tuple[TrainState, Metrics]:
        specs = state_specs(state, where)
        state, metrics = step(lies(state, specs), batch)
        aux, numbers = metrics.aux, replace(metrics, aux=None)
        numbers = lies(numbers, jax.tree.map(lambda _: P(), numbers))
        return lies(state, specs), replace(numbers, aux=aux)

    return constrained

"""The JAX half of a walk: one jitted step, observed, in PyTorch's names and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._batch import stack
from .._loop import JaxLoop, OpaqueLoop, initial_state, observed_step
from .._state import PyTree, View
from .._trees import named_leaves
from ..bridge._copy import map_containers
from ..bridge._weights import Rule, to_jax, to_torch
from ._leaf import Leaf, Observation
from ._opt_state import learning_rates, slots


@dataclass
class JaxWalk:
    """A state, and the step that takes it on and shows a ``View``."""

    state: PyTree
    view: View  # what stands before the first step
    step: Callable[[PyTree, PyTree], tuple[PyTree, View]]
    links: Rule = ()

    def start(self) -> Observation:
        return self._standing(self.view)

    def advance(self, batch: PyTree) -> Observation:
        """Take one step and return every leaf that can be seen."""
        before = to_torch(self.links, self.view.params)
        self.state, self.view = self.step(self.state, batch)
        view = jax.device_get(self.view)
        seen = {Leaf("loss", "loss"): np.asarray(view.loss)}
        for kind, tree in (
            ("gradient", view.grads),
            ("clipped gradient", view.clipped_grads),
        ):
            if tree is not None:
                arrays = to_torch(self.links, tree)
                seen |= {Leaf(kind, name): array for name, array in arrays.items()}
        if view.grad_norm is not None:
            seen[Leaf("gradient norm", "total")] = np.asarray(view.grad_norm)
        after = self._standing(view)
        seen |= {
            Leaf("update", name): after[Leaf("parameter", name)] - p
            for name, p in before.items()
        }
        return seen | after

    def _standing(self, view: View) -> Observation:
        seen = {}
        for kind, tree in (("parameter", view.params), ("buffer", view.buffers)):
            arrays = to_torch(self.links, tree)
            seen |= {Leaf(kind, name): array for name, array in arrays.items()}
        for slot, tree in slots(view.opt_state).items():
            for name, array in self._slot(tree, view.params).items():
                seen[Leaf("state", f"{name}.{slot}")] = array
        for i, lr in enumerate(learning_rates(view.opt_state)):
            seen[Leaf("lr", f"group {i}")] = np.asarray(lr)
        return seen

    def _slot(self, tree: PyTree, params: PyTree) -> dict[str, np.ndarray]:
        """One slot by PyTorch name; a scalar for the whole tree counts for each parameter."""
        named = named_leaves(tree)
        found = {}
        for link in self.links:
            if link.jax not in named_leaves(params):
                continue
            array = np.asarray(named.get(link.jax, tree if set(named) == {""} else np.nan))
            found[link.torch] = array if array.ndim == 0 else link.layout.to_torch(array)
        return found


def native(loop: JaxLoop, links: Rule, weights: dict[str, np.ndarray]) -> JaxWalk:
    """Walk a ``JaxLoop`` from PyTorch's weights."""
    loop = replace(
        loop,
        params=to_jax(links, weights, loop.params),
        buffers=to_jax(links, weights, loop.buffers),
    )
    step = observed_step(loop)

    @jax.jit
    def advance(state, batch):
        state, _, view = step(state, batch)
        return state, view

    state = initial_state(loop)
    view = View(np.nan, state.params, state.buffers, state.opt_state)
    return JaxWalk(state, view, advance, links)


def opaque(loop: OpaqueLoop, batch: PyTree) -> JaxWalk:
    """Walk somebody's own step from its own weights, cast to float64.

    ``batch`` is the first one: the metrics it would give, as zeros, let ``view`` look at the
    state before the first step.
    """
    state = loop.state() if callable(loop.state) else loop.state
    state = jax.tree.map(_double, state)
    _, metrics = jax.eval_shape(loop.step, state, batch)
    metrics = jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics)

    def advance(state, batch):
        state, metrics = loop.step(state, batch)
        # Copied, because the next step may donate the state.
        return state, jax.tree.map(np.array, loop.view(state, metrics))

    view = jax.tree.map(np.array, loop.view(state, metrics))
    return JaxWalk(state, view, advance)


def batch_of(window: list[Any], convert: Callable[[Any], Any]) -> PyTree:
    """The JAX batch of a window of PyTorch microbatches, as NumPy arrays."""
    microbatches = [_numpy(convert(microbatch)) for microbatch in window]
    return microbatches[0] if len(microbatches) == 1 else stack(microbatches)


def _numpy(tree: Any) -> Any:
    if hasattr(tree, "detach"):
        return tree.detach().cpu().numpy()
    return map_containers(_numpy, tree)


def _double(leaf: Any) -> Any:
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.array(leaf, jnp.float64, copy=True)
    return jnp.array(leaf, copy=True)

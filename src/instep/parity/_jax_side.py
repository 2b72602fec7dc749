"""The JAX half of a walk: one jitted step, observed, in PyTorch's names and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._loop import JaxLoop, OpaqueLoop, initial_state, observed_step
from .._state import PyTree, View
from .._trees import named_leaves
from ..bridge._weights import WeightMap, arrays_to_torch
from ._leaf import Leaf, Observation
from ._opt_state import learning_rate, slots


@dataclass
class JaxWalk:
    """A state, and the step that takes it on and shows a ``View``."""

    state: PyTree
    view: View  # what stands before the first step
    step: Callable[[PyTree, PyTree], tuple[PyTree, View]]
    links: WeightMap = field(default_factory=WeightMap)
    parameters: frozenset[str] = frozenset()  # what PyTorch calls a parameter

    def start(self) -> Observation:
        """What stands before the first step."""
        return self._standing(self.view)

    def advance(self, batch: PyTree) -> Observation:
        """Take one step and return every leaf that can be seen."""
        before = self._held(self.view)
        self.state, self.view = self.step(self.state, batch)
        view = jax.device_get(self.view)
        seen = {Leaf("loss", "loss"): np.asarray(view.loss)}
        if view.grad_norm is not None:
            seen[Leaf("gradient norm", "total")] = np.asarray(view.grad_norm)
        for kind, tree in (("gradient", view.grads), ("clipped gradient", view.clipped_grads)):
            if tree is not None:
                # A parameter that PyTorch has frozen may be a buffer here: no gradient is zero.
                zeros = named_leaves(jax.tree.map(np.zeros_like, view.buffers))
                arrays = arrays_to_torch(self.links.links, zeros | named_leaves(tree))
                seen |= {
                    Leaf(kind, name): array
                    for name, array in arrays.items()
                    if name in self.parameters
                }
        held = self._held(view)
        seen |= {
            Leaf("update", leaf.name): value - before[leaf]
            for leaf, value in held.items()
            if leaf.kind == "parameter"
        }
        return seen | self._standing(view)

    def _standing(self, view: View) -> Observation:
        seen = self._held(view)
        by_slot: dict[str, dict[str, np.ndarray]] = {}
        for (name, slot), value in slots(view.opt_state).items():
            by_slot.setdefault(slot, {})[name] = np.asarray(value)
        for slot, named in by_slot.items():
            arrays = arrays_to_torch(self.links.links, _matrices(named))
            arrays |= _scalars(self.links, named)
            seen |= {Leaf("state", f"{name}.{slot}"): array for name, array in arrays.items()}
        rate = learning_rate(view.opt_state)
        if rate is not None:
            seen[Leaf("lr", "group 0")] = np.asarray(rate)
        return seen

    def _held(self, view: View) -> Observation:
        """Parameters and buffers, each under the kind that PyTorch gives it."""
        named = named_leaves(view.params) | named_leaves(view.buffers)
        arrays = arrays_to_torch(
            self.links.links, {name: np.asarray(leaf) for name, leaf in named.items()}
        )
        return {
            Leaf("parameter" if name in self.parameters else "buffer", name): array
            for name, array in arrays.items()
        }


def _matrices(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in named.items() if array.ndim}


def _scalars(weights: WeightMap, named: dict[str, np.ndarray]) -> dict[str, Any]:
    """A number per leaf, such as a step count, counts for every tensor of its link.

    Leaves of one link that disagree have no common number; their mean is that of neither.
    """
    found: dict[str, Any] = {}
    for link in weights.links:
        values = [named[name] for name in link.jax if name in named and not named[name].ndim]
        if values and len(values) == len(link.jax):
            alike = all(value == values[0] for value in values)
            found |= dict.fromkeys(link.torch, values[0] if alike else np.mean(values))
    return found


def native(loop: JaxLoop) -> JaxWalk:
    """Walk a ``JaxLoop``."""
    step = observed_step(loop)

    @jax.jit
    def advance(state, batch):
        state, _, view = step(state, batch)
        return state, view

    state = initial_state(loop)
    view = View(np.nan, state.params, state.buffers, state.opt_state)
    return JaxWalk(state, view, advance)


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
    if not isinstance(view, View):
        raise TypeError(
            f"view returned a {type(view).__name__}; return instep.View(loss, ...)."
        )
    return JaxWalk(state, view, advance)


def _double(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.array(leaf, copy=True)
    dtype = jnp.result_type(leaf)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.array(leaf, jnp.float64, copy=True)
    return jnp.array(leaf, copy=True)

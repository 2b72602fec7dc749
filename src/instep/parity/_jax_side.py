"""The JAX half of a walk: one jitted step, observed, in PyTorch's names and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from .._loop import JaxLoop, initial_state, observed_step
from .._state import PyTree, View
from ..bridge._weights import Links, weights_to_jax, weights_to_torch
from ._leaf import Leaf, Observation
from ._opt_state import learning_rate, slots, write_slots


Step = Callable[[PyTree, PyTree], tuple[PyTree, View]]


class CannotSync(Exception):
    """The JAX side cannot be set to where PyTorch stands; the message says why."""


@dataclass
class JaxWalk:
    """A state, and the step that takes it on and shows a ``View``."""

    state: PyTree
    view: View  # what stands now
    step: Step
    write: Callable[[PyTree, View], PyTree]  # a state that shows another view
    obstacle: str | None = None  # why there is no such state
    links: Links = ()
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
                zeros = weights_to_torch(self.links, jax.tree.map(np.zeros_like, view.buffers))
                arrays = {n: z for n, z in zeros.items() if n in self.parameters}
                arrays |= weights_to_torch(self.links, tree)
                seen |= {Leaf(kind, name): array for name, array in arrays.items()}
        held = self._held(view)
        seen |= {
            Leaf("update", leaf.name): value - before[leaf]
            for leaf, value in held.items()
            if leaf.kind == "parameter"
        }
        return seen | self._standing(view)

    def sync(self, torch: Observation) -> None:
        """Stand where PyTorch stands: its parameters, buffers and optimizer state.

        Counts and the learning rate stay: they go on by themselves, in step or not.

        Raises:
          CannotSync: something of it has no known place on this side.
        """
        if self.obstacle:
            raise CannotSync(self.obstacle)
        arrays = {x.name: v for x, v in torch.items() if x.kind in ("parameter", "buffer")}
        by_name = {link.torch: link for link in self.links}
        known, values = slots(self.view.opt_state), {}
        for leaf, value in torch.items():
            name, _, slot = leaf.name.rpartition(".")
            if leaf.kind != "state" or name not in by_name:
                continue
            link = by_name[name]
            if (link.jax, slot) in known and value.shape == arrays[name].shape:
                values[link.jax, slot] = link.layout.to_jax(value)
            elif value.ndim:
                raise CannotSync(f"the JAX side does not show the {slot} of {name}")
        view = replace(
            self.view,
            params=weights_to_jax(self.links, arrays, self.view.params),
            buffers=weights_to_jax(self.links, arrays, self.view.buffers),
            opt_state=write_slots(self.view.opt_state, values),
        )
        self.state, self.view = self.write(self.state, view), view

    def _standing(self, view: View) -> Observation:
        seen = self._held(view)
        by_name = {link.jax: link for link in self.links}
        for (name, slot), value in slots(view.opt_state).items():
            link, array = by_name[name], np.asarray(value)
            array = array if array.ndim == 0 else link.layout.to_torch(array)
            seen[Leaf("state", f"{link.torch}.{slot}")] = array
        rate = learning_rate(view.opt_state)
        if rate is not None:
            seen[Leaf("lr", "group 0")] = np.asarray(rate)
        return seen

    def _held(self, view: View) -> Observation:
        """Parameters and buffers, each under the kind that PyTorch gives it."""
        arrays = weights_to_torch(self.links, view.params)
        arrays |= weights_to_torch(self.links, view.buffers)
        return {
            Leaf("parameter" if name in self.parameters else "buffer", name): array
            for name, array in arrays.items()
        }


def native_step(loop: JaxLoop) -> Step:
    """The step of a ``JaxLoop``, jitted: one function for the walks of all precisions."""
    observed = observed_step(loop)

    @jax.jit
    def advance(state, batch):
        state, _, view = observed(state, batch)
        return state, view

    return advance


def native(loop: JaxLoop, step: Step) -> JaxWalk:
    """Walk a ``JaxLoop``, in the precision of its parameters."""

    def write(state, view):
        return replace(
            state,
            params=_like(state.params, view.params),
            buffers=_like(state.buffers, view.buffers),
            opt_state=_like(state.opt_state, view.opt_state),
        )

    state = initial_state(loop)
    view = View(np.nan, state.params, state.buffers, state.opt_state)
    return JaxWalk(state, view, step, write)


def _like(old: PyTree, new: PyTree) -> PyTree:
    """``new`` on the device, in the dtypes of ``old``."""
    return jax.tree.map(lambda o, n: jnp.array(n, o.dtype, copy=True), old, new)

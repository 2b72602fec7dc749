"""The JAX half of a walk: one jitted step, observed, in PyTorch's names and layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._loop import JaxLoop, OpaqueLoop, initial_state, observed_step
from .._select import selected
from .._state import PlateauState, PyTree, View
from .._trees import named_leaves
from ..bridge._opt_state import STARTED, group_hyperparams, slots, write_slots
from ..bridge._weights import WeightMap, arrays_to_jax, arrays_to_torch, weights_to_jax
from . import _lbfgs
from ._leaf import FOUND_INF, PLATEAU, Leaf, Observation
from ._lift import lift_jax
from ._spill import spilled, spilled_tree


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
    hidden: tuple[str, ...] = ()  # arrays of the state that no view shows
    weights: WeightMap = field(default_factory=WeightMap)
    parameters: frozenset[str] = frozenset()  # what PyTorch calls a parameter
    frozen: frozenset[str] = frozenset()  # JAX leaves that are not trained
    cycles_momentum: bool = False  # PyTorch's scheduler sets it too

    def start(self) -> Observation:
        """What stands before the first step."""
        return self._standing(self.view)

    def advance(self, batch: PyTree) -> Observation:
        """Take one step and return every leaf that can be seen."""
        before = self._held(self.view)
        self.state, view = self.step(self.state, batch)
        self.view = jax.device_get(view)
        self.rest()
        view = self.view
        seen = {Leaf("loss", "loss"): np.asarray(view.loss)}
        if view.skipped is not None:
            seen[FOUND_INF] = np.asarray(view.skipped, np.float32)
        if view.grad_norm is not None:
            seen[Leaf("gradient norm", "total")] = np.asarray(view.grad_norm)
        for kind, tree in (("gradient", view.grads), ("clipped gradient", view.clipped_grads)):
            if tree is not None:
                named = self._zeros(view, tree) | named_leaves(tree)
                arrays = arrays_to_torch(self.weights.links, named)
                seen |= {
                    Leaf(kind, name): array
                    for name, array in arrays.items()
                    if name in self.parameters
                }
        held = self._held(view)
        seen |= {
            Leaf("update", leaf.name): spilled(value - before[leaf])
            for leaf, value in held.items()
            if leaf.kind == "parameter"
        }
        return seen | self._standing(view)

    def rest(self) -> None:
        """Leave memory to others until the next step."""
        self.state, self.view = spilled_tree(self.state), spilled_tree(self.view)

    def _zeros(self, view: View, grads: PyTree) -> dict[str, np.ndarray]:
        """No gradient is zero: of what is frozen, and what is a buffer here."""
        given = jax.tree.map(lambda x: 0, grads, is_leaf=lambda x: x is None)
        frozen = {
            name: np.zeros_like(leaf)
            for name, leaf in named_leaves(view.params).items()
            if name in named_leaves(given)
        }
        return frozen | named_leaves(jax.tree.map(np.zeros_like, view.buffers))

    def sync(self, torch: Observation) -> None:
        """Stand where PyTorch stands: its parameters, buffers and optimizer state.

        Counts, the learning rate and the scaler stay: they go on by themselves, in step or not.

        Raises:
          CannotSync: something of it has no known place on this side.
        """
        if self.obstacle:
            raise CannotSync(self.obstacle)
        arrays = {x.name: v for x, v in torch.items() if x.kind in ("parameter", "buffer")}
        opt_state = _lbfgs.synced(self.view.opt_state, self.weights.links, torch)
        if opt_state is None:
            opt_state = write_slots(self.view.opt_state, self._slots_of(torch))
        view = replace(
            self.view,
            params=weights_to_jax(self.weights, arrays, self.view.params),
            buffers=weights_to_jax(self.weights, arrays, self.view.buffers),
            opt_state=_on_plateau(opt_state, torch),
        )
        self.state, self.view = self.write(self.state, view), view

    def _slots_of(self, torch: Observation) -> dict[tuple[str, str], np.ndarray]:
        """PyTorch's optimizer state that is shaped like its parameter, where JAX keeps it."""
        if Leaf("state", f"{_lbfgs.WHOLE}.n_iter") in torch:
            raise CannotSync("the JAX side shows no LBFGSState of the same history_size")
        by_slot: dict[str, dict[str, np.ndarray]] = {}
        for leaf, value in torch.items():
            name, _, slot = leaf.name.rpartition(".")
            if leaf.kind != "state" or slot == "step":
                continue
            if value.shape == torch[Leaf("parameter", name)].shape:
                by_slot.setdefault(slot, {})[name] = value
        found = {
            (name, slot): value
            for slot, arrays in by_slot.items()
            for name, value in arrays_to_jax(self.weights.links, arrays).items()
        }
        known = slots(self.view.opt_state)
        hidden = [f"{slot} of {name}" for name, slot in found if (name, slot) not in known]
        if hidden:
            raise CannotSync(f"the JAX side does not show the {hidden[0]}")
        return found

    def _standing(self, view: View) -> Observation:
        seen = self._held(view)
        by_slot: dict[str, dict[str, np.ndarray]] = {}
        for (name, slot), value in slots(view.opt_state).items():
            if slot == STARTED:
                continue
            if name in self.frozen:
                continue  # PyTorch makes no state for it
            by_slot.setdefault(slot, {})[name] = np.asarray(value)
        for slot, named in by_slot.items():
            arrays = arrays_to_torch(self.weights.links, _matrices(named))
            arrays |= _scalars(self.weights, named)
            seen |= {Leaf("state", f"{name}.{slot}"): array for name, array in arrays.items()}
        seen |= _lbfgs.of_jax(view.opt_state, self.weights.links)
        for i, values in enumerate(group_hyperparams(view.opt_state)):
            seen[Leaf("lr", f"group {i}")] = np.asarray(values["lr"])
            momentum = values.get("momentum", values.get("beta1"))
            if self.cycles_momentum and momentum is not None:
                seen[Leaf("momentum", f"group {i}")] = np.asarray(momentum)
        for plateau in _plateaus(view.opt_state):
            seen |= {leaf: np.asarray(getattr(plateau, leaf.name)) for leaf in PLATEAU}
        for name in ("scale", "growth_tracker"):
            value = getattr(view.scaler, name, None)
            if value is not None:
                seen[Leaf("scaler", name)] = np.asarray(value)
        return seen

    def _held(self, view: View) -> Observation:
        """Parameters and buffers, each under the kind that PyTorch gives it."""
        named = named_leaves(view.params) | named_leaves(view.buffers)
        arrays = arrays_to_torch(
            self.weights.links, {name: np.asarray(leaf) for name, leaf in named.items()}
        )
        return {
            Leaf("parameter" if name in self.parameters else "buffer", name): array
            for name, array in arrays.items()
        }


def _plateaus(opt_state: PyTree) -> list[PlateauState]:
    leaves = jax.tree.leaves(opt_state, is_leaf=_is_plateau)
    return [x for x in leaves if isinstance(x, PlateauState)]


def _on_plateau(opt_state: PyTree, torch: Observation) -> PyTree:
    """``opt_state`` with PyTorch's best metric; the counts and the rate go on by themselves."""
    best = torch.get(Leaf("plateau", "best"))
    if best is None:
        return opt_state
    return jax.tree.map(
        lambda x: replace(x, best=best.astype(x.best.dtype)) if _is_plateau(x) else x,
        opt_state,
        is_leaf=_is_plateau,
    )


def _is_plateau(x: Any) -> bool:
    return isinstance(x, PlateauState)


def _matrices(named: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in named.items() if array.ndim}


def _scalars(weights: WeightMap, named: dict[str, np.ndarray]) -> dict[str, Any]:
    """A number per leaf, such as a step count, counts for every tensor of its link.

    Leaves of one link that disagree have no common number: NaN, which nothing equals.
    """
    found: dict[str, Any] = {}
    for link in weights.links:
        values = [named[name] for name in link.jax if name in named and not named[name].ndim]
        if values and len(values) == len(link.jax):
            alike = all(value == values[0] for value in values)
            found |= dict.fromkeys(link.torch, values[0] if alike else np.array(np.nan))
    return found


@contextmanager
def jax_precision(dtype: str) -> Iterator[None]:
    """The surroundings of a step of the JAX half in ``dtype``."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


class Steps(NamedTuple):
    """One step of a loop, traced once for each dtype, whatever the number of walks."""

    lifted: Callable  # for float64
    plain: Callable  # for less


def steps_of(loop: JaxLoop | OpaqueLoop) -> Steps:
    """That of a ``JaxLoop`` returns its state and a ``View``, an opaque one its metrics."""
    if isinstance(loop, OpaqueLoop):
        return Steps(jax.jit(lift_jax(loop.step)), loop.step)
    observed = observed_step(loop)

    def advance(state, batch):
        state, _, view = observed(state, batch)
        return state, view

    return Steps(jax.jit(lift_jax(advance)), jax.jit(advance))


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
    view = View(np.nan, state.params, state.buffers, state.opt_state, scaler=state.scaler)
    return JaxWalk(state, view, step, write, frozen=frozenset(_frozen(loop)))


def _frozen(loop: JaxLoop) -> list[str]:
    if loop.trainable is None:
        return []
    flags = named_leaves(selected(loop.trainable, loop.params))
    return [name for name, trained in flags.items() if not trained]


def _like(old: PyTree, new: PyTree) -> PyTree:
    """``new`` on the device, in the dtypes of ``old``."""
    return jax.tree.map(lambda o, n: jnp.array(n, o.dtype, copy=True), old, new)

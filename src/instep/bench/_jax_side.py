"""The JAX half of a problem: where it starts, its batches, and its numbers by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._batch import joined
from .._loop import JaxLoop
from .._state import PyTree
from .._trees import named_leaves
from ._contender import Contender
from ._problem import Problem


if TYPE_CHECKING:
    from ..bridge._torch_loop import TorchLoop
    from ..bridge._weights import WeightMap
    from ..parity._leaf import Observation

Step = Callable[[Any, Any], tuple[Any, Any]]  # (state, batch) -> (state, loss)


@dataclass(frozen=True)
class JaxSide:
    """A JAX loop that starts from the weights of the PyTorch half, if there is one."""

    loop: JaxLoop
    batches: list[PyTree]  # on the device; with accumulate above 1 leaves are (k, b, ...)
    double: bool
    torch: TorchLoop | None = None
    weights: WeightMap | None = None

    def jit(self, step: Step) -> Step:
        """Jitted and donated; for the check, every float in it is float64."""
        if self.double:
            from ..parity._lift import lift_jax

            return jax.jit(lift_jax(step))
        return jax.jit(step, donate_argnums=0)

    def microbatches(self) -> list[list[PyTree]]:
        """The batches, each as the list of its microbatches."""
        k = self.loop.accumulate
        if k == 1:
            return [[batch] for batch in self.batches]
        return [[jax.tree.map(lambda x, i=i: x[i], b) for i in range(k)] for b in self.batches]

    def start(self) -> tuple[PyTree, PyTree]:
        """Copies of the parameters and buffers, on the device."""
        return jax.tree.map(
            lambda x: jnp.array(x, copy=True), (self.loop.params, self.loop.buffers)
        )

    def named(self, params: PyTree, buffers: PyTree) -> Observation:
        """Every leaf under the name and in the layout of its PyTorch tensor."""
        from ..parity._leaf import Leaf

        own = named_leaves(params)
        arrays = {n: np.asarray(x) for n, x in (own | named_leaves(buffers)).items()}
        if self.weights is None or self.torch is None:
            return {
                Leaf("parameter" if n in own else "buffer", n): x for n, x in arrays.items()
            }
        from ..bridge._weights import arrays_to_torch

        trained = {name for name, _ in self.torch.model.named_parameters()}
        found = arrays_to_torch(self.weights.links, arrays)
        return {Leaf("parameter" if n in trained else "buffer", n): x for n, x in found.items()}


def jax_side(problem: Problem, lowered: bool = False) -> JaxSide:
    """The JAX half of ``problem``; ``lowered``: what from_torch makes of the PyTorch half."""
    if isinstance(problem.given, JaxLoop):
        loop, batches = problem.given, problem.jax_batches()
        if problem.double:
            from dataclasses import replace

            from ._problem import _double

            params, buffers = jax.tree.map(_double, (loop.params, loop.buffers))
            loop = replace(loop, params=params, buffers=buffers)
        return JaxSide(loop, _placed(batches), problem.double)
    from ..bridge._tensors import to_numpy
    from ..bridge._transfer import link, model_arrays, start_from

    reference, pair = problem.reference(), problem.pair(lowered)
    assert isinstance(pair.jax, JaxLoop)
    weights = link(pair.weights, reference.model, pair.jax.params, pair.jax.buffers)
    loop = start_from(model_arrays(reference), weights, pair.jax)
    batches = [
        joined([to_numpy(pair.batch(x)) for x in window], loop.accumulate)
        for window in problem.windows()
    ]
    return JaxSide(loop, _placed(batches), problem.double, reference, weights)


def contender(
    side: JaxSide | None,
    state: Any,
    step: Step,
    params_and_buffers: Callable[[Any], tuple[PyTree, PyTree]],
    notes: dict[str, str],
    batches: list[Any],
) -> Contender:
    """A ``Contender`` of ``state, loss = step(state, batch)``; no side: it is not checked."""
    here: dict[str, Any] = {"state": state, "loss": None}

    def take(n: int) -> None:
        here["state"], here["loss"] = step(here["state"], batches[n % len(batches)])

    def wait() -> None:
        jax.block_until_ready((here["loss"], params_and_buffers(here["state"])))

    def standing() -> Observation:
        assert side is not None, "what is checked has one"
        return side.named(*params_and_buffers(here["state"]))

    device = jax.devices()[0]

    def peak() -> int | None:
        stats = device.memory_stats() or {}
        return stats.get("peak_bytes_in_use")

    return Contender(
        take,
        wait,
        standing,
        lambda: float(here["loss"]),
        device.device_kind,
        notes,
        peak=peak,
    )


def _placed(batches: list[PyTree]) -> list[PyTree]:
    return [jax.block_until_ready(jax.tree.map(jnp.asarray, batch)) for batch in batches]

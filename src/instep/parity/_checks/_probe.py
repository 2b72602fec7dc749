"""The first steps of both halves, as the checks look at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from ..._loop import JaxLoop, initial_state, observed_step
from ..._on_cpu import as_written
from ..._state import PyTree
from ...bridge._tensors import batch_of, joined, to_numpy
from ...bridge._torch_loop import windows
from ...bridge._transfer import link, model_arrays, start_from
from ...bridge._weights import WeightMap
from .._pair import Pair
from ._torch_run import TorchRun, torch_run


Step = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]


@dataclass(frozen=True)
class Probe:
    """A pair and its first ``steps`` windows; everything else is made when it is asked for."""

    pair: Pair
    steps: int

    @cached_property
    def windows(self) -> list[list[Any]]:
        """As the PyTorch half yields them."""
        return list(islice(windows(self.pair.torch), self.steps))

    @cached_property
    def torch(self) -> TorchRun:
        """A copy of the PyTorch half, run over ``windows``."""
        return torch_run(self.pair.torch, self.windows)

    @cached_property
    def batches(self) -> list[PyTree]:
        """As the JAX half gets them, one a step."""
        convert, accumulate = self.pair.batch, self.pair.torch.accumulate
        if not self.pair.replays:
            return [batch_of(window, convert, accumulate) for window in self.windows]
        return [
            joined(
                [(to_numpy(convert(x)), draws) for x, draws in zip(window, drawn, strict=True)],
                accumulate,
            )
            for window, drawn in zip(self.windows, self.torch.drawn, strict=True)
        ]

    @cached_property
    def step(self) -> Step:
        """The step of the JAX half, not jitted here."""
        if not isinstance(self.pair.jax, JaxLoop):
            return self.pair.jax.step
        observed = observed_step(self.pair.jax)
        return lambda state, batch: observed(state, batch)[:2]

    def state(self) -> PyTree:
        """Where the JAX half starts; a copy, which may be donated."""
        half = self.pair.jax
        if isinstance(half, JaxLoop):
            return initial_state(start_from(model_arrays(self.pair.torch), self.weights, half))
        state = half.state() if callable(half.state) else half.state
        return jax.tree.map(_copied, state)

    @cached_property
    def held(self) -> tuple[PyTree, PyTree]:
        """Parameters and buffers of the JAX half; of an opaque one as its view shows them."""
        half = self.pair.jax
        if isinstance(half, JaxLoop):
            return half.params, half.buffers
        state = self.state()
        metrics = jax.eval_shape(self.step, state, self.batches[0])[1]
        view = half.view(state, jax.tree.map(lambda m: jnp.zeros(m.shape, m.dtype), metrics))
        return view.params, view.buffers

    @cached_property
    def weights(self) -> WeightMap:
        """Which tensor is which leaf."""
        return link(self.pair.weights, self.pair.torch.model, *self.held)

    @cached_property
    def jaxpr(self) -> ClosedJaxpr:
        """Of one step, from the first batch."""
        with as_written():
            return jax.make_jaxpr(self.step)(self.state(), self.batches[0])


def _copied(leaf: Any) -> Any:
    """Weakly typed if it was; a number of Python's stays one."""
    return jnp.array(leaf, copy=True) if isinstance(leaf, jax.Array) else leaf

"""From what a TARGET names to a loop that can be trained, with its batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .. import data
from .._errors import RequestError, TargetError
from .._loop import JaxLoop
from .._state import PyTree
from ..workloads import Workload


if TYPE_CHECKING:
    from ..bridge import TorchLoop
    from ..data import BatchStream
    from ..parity import Pair


@dataclass(frozen=True)
class Trainable:
    """A JaxLoop with its batches, and what it is measured by."""

    loop: JaxLoop
    steps: int
    metric: str = ""  # its name
    measure: Callable[[PyTree, PyTree], float] | None = None  # (params, buffers) -> metric


def trainable(found: Any, target: str, steps: int | None) -> Trainable:
    """What ``instep train`` runs for ``found``.

    Args:
      found: a ``Workload``, ``JaxLoop``, ``Pair`` or ``TorchLoop``. PyTorch is imported for
        the first and the last two alone, which are made of it.
      target: what the user called it.
      steps: None: those of the workload.

    Raises:
      TargetError: it is something else, or has no batches.
      RequestError: there is no number of steps.
    """
    workload = found if isinstance(found, Workload) else None
    if steps is None and workload is None:
        raise RequestError(f"{target} does not say how many steps. Give --steps N.")
    total = steps if steps is not None else getattr(workload, "total_steps", 0)
    if workload is not None:
        from ..workloads._train import jax_metric

        pair = workload.make_pair()
        loop, measure = _of_pair(pair), jax_metric(workload, pair)
        return Trainable(loop, total, workload.metric.name, measure)
    if isinstance(found, JaxLoop):
        if found.batches is None:
            raise TargetError(f"{target} has no batches. Give JaxLoop(batches=...).")
        return Trainable(found, total)
    if "torch" in sys.modules:  # else it is made of none of these
        from ..bridge import TorchLoop
        from ..parity import Pair

        if isinstance(found, Pair) and isinstance(found.jax, JaxLoop):
            return Trainable(_of_pair(found), total)
        if isinstance(found, TorchLoop):
            return Trainable(_of_torch(found, total), total)
    raise TargetError(
        f"{target} returned a {type(found).__name__}; train takes an instep.JaxLoop with "
        f"batches, an instep.Pair whose JAX half is a JaxLoop, an instep.TorchLoop or a "
        f"Workload."
    )


def _of_pair(pair: Pair) -> JaxLoop:
    """The JAX half, from the weights of the PyTorch half and on its batches."""
    from ..bridge._tensors import to_numpy, to_tensors
    from ..bridge._transfer import link, model_arrays, start_from

    assert isinstance(pair.jax, JaxLoop)
    links = link(pair.weights, pair.torch.model, pair.jax.params, pair.jax.buffers)
    half = start_from(model_arrays(pair.torch), links, pair.jax)
    batches = _windows(pair.torch, lambda b: to_numpy(pair.batch(to_tensors(b))))
    return replace(half, batches=batches)


def _of_torch(loop: TorchLoop, steps: int) -> JaxLoop:
    from ..bridge._from_torch import _as_array, jax_loop_of, lowered_loss
    from ..parity._pair import _scheduler_steps

    loss_fn = lowered_loss(loop)
    half = jax_loop_of(loop, loss_fn, _scheduler_steps(loop, steps))
    batches = _windows(loop, lambda b: [_as_array(x) for x in loss_fn.leaves(b)])
    return replace(half, batches=batches)


def _windows(loop: TorchLoop, convert: Callable[[Any], PyTree]) -> BatchStream:
    """The JAX batches of a PyTorch loop."""
    batches = loop.batches() if callable(loop.batches) else loop.batches
    if callable(loop.batches) and iter(batches) is batches:  # used up after an epoch
        batches = _Again(loop.batches)
    microbatches = data.mapped(convert, batches)
    if loop.accumulate == 1:
        return microbatches
    return data.windows(microbatches, loop.accumulate, loop.drop_last)


@dataclass(frozen=True)
class _Again:
    make: Callable[[], Any]

    def __iter__(self) -> Any:
        return iter(self.make())

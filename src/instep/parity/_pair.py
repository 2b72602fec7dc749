"""A PyTorch loop and a JAX loop that claim to be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._loop import JaxLoop, OpaqueLoop
from ..bridge._from_torch import jax_loop_of, lowered_loss
from ..bridge._match import split_rules
from ..bridge._rule import Rule
from ..bridge._rules import tensor
from ..bridge._scheduler import steps_taken
from ..bridge._torch_loop import TorchLoop
from ..bridge.lower._lowered import unwrapped
from ._half import check_half


@dataclass(frozen=True)
class Pair:
    """Two independent programs, and how their weights and batches correspond.

    PyTorch: a loop of ``torch.optim`` and a model, as ``TorchLoop`` describes it.

    Args:
      torch: the PyTorch half; the reference.
      jax: the JAX half. A ``JaxLoop`` starts from the weights of the PyTorch model; an
        opaque loop (``JaxLoop.opaque``) keeps its own, and the PyTorch model takes them.
      weights: ``"auto"``: every layer is matched by its kind and name; or a list with one
        rule per layer, ``bridge.linear("fc1"), ...``, in which ``"auto"`` stands for the
        rest. ``bridge.match_weights`` prints what is matched with what.
      batch: makes the JAX microbatch from a PyTorch one (NCHW to NHWC, ...); tensors in what
        it returns become NumPy arrays.
      replays: the JAX microbatch is ``(batch, drawn)``, with what the PyTorch half drew at
        random in its forward pass, in order.

    Raises:
      TypeError: a half is no loop, or ``weights`` are neither ``"auto"`` nor rules.
      ValueError: the halves do not accumulate alike.
    """

    torch: TorchLoop
    jax: JaxLoop | OpaqueLoop
    weights: Sequence[Rule | str] | str = "auto"
    batch: Callable[[Any], Any] = lambda microbatch: microbatch
    replays: bool = False

    def __post_init__(self):
        if not isinstance(self.torch, TorchLoop):
            raise TypeError(
                f"Pair.torch is a {type(self.torch).__name__}; give an instep.TorchLoop."
            )
        check_half(self.jax, "Pair.jax", self.torch.accumulate, self.torch.drop_last)
        split_rules(self.weights)


def lowered_pair(loop: TorchLoop, steps: int) -> Pair:
    """``loop`` and the JAX loop that ``from_torch`` makes of it, with the same random draws.

    Args:
      loop: a model in a wrapper is compared without it.
      steps: how far the schedule must reach.

    Raises:
      LoweringError, ValueError: as ``from_torch``.
    """
    loop = replace(loop, model=unwrapped(loop.model))
    loss_fn = lowered_loss(loop)
    half = jax_loop_of(loop, loss_fn, _scheduler_steps(loop, steps))
    draws = bool(loss_fn.lowered.draws)
    if draws:
        half = replace(half, loss_fn=loss_fn.replaying, rng=None)
    names = [*loss_fn.lowered.params, *loss_fn.lowered.buffers]
    return Pair(loop, half, [tensor(name) for name in names], loss_fn.leaves, draws)


def _scheduler_steps(loop: TorchLoop, steps: int) -> int | None:
    if loop.scheduler is None:
        return None
    return steps_taken(loop.scheduler) + steps // loop.scheduler_every + 1

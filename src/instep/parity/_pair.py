"""A PyTorch loop and a JAX loop that claim to be the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .._loop import JaxLoop, OpaqueLoop
from ..bridge._match import split_rules
from ..bridge._rule import Rule
from ..bridge._torch_loop import TorchLoop


@dataclass(frozen=True)
class Pair:
    """Two independent programs, and how their weights and batches correspond.

    Args:
      torch: the PyTorch half; the reference.
      jax: the JAX half. A ``JaxLoop`` starts from the weights of the PyTorch model; an
        opaque loop (``JaxLoop.opaque``) keeps its own, and the PyTorch model takes them.
      weights: ``"auto"``: every layer is matched by its kind and name; or a list with one
        rule per layer, ``bridge.linear("fc1"), ...``, in which ``"auto"`` stands for the
        rest. ``bridge.match_weights`` prints what is matched with what.
      batch: makes the JAX microbatch from a PyTorch one (NCHW to NHWC, ...); tensors in what
        it returns become NumPy arrays.
    """

    torch: TorchLoop
    jax: JaxLoop | OpaqueLoop
    weights: Sequence[Rule | str] | str = "auto"
    batch: Callable[[Any], Any] = lambda microbatch: microbatch

    def __post_init__(self):
        if not isinstance(self.torch, TorchLoop):
            raise TypeError(
                f"Pair.torch is a {type(self.torch).__name__}; give an instep.TorchLoop."
            )
        if not isinstance(self.jax, JaxLoop | OpaqueLoop):
            raise TypeError(
                f"Pair.jax is a {type(self.jax).__name__}; give an instep.JaxLoop or "
                f"JaxLoop.opaque(step, state, view)."
            )
        split_rules(self.weights)
        if isinstance(self.jax, JaxLoop) and self.jax.accumulate != self.torch.accumulate:
            raise ValueError(
                f"the halves accumulate over different windows: PyTorch "
                f"{self.torch.accumulate}, JAX {self.jax.accumulate}. Both see the same "
                f"microbatches; make accumulate equal."
            )

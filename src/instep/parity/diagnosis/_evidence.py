"""What a diverging step left behind: where both halves stood, what each was given and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from ...bridge._copy import copy_loop
from ...bridge._torch_loop import TorchLoop
from .._leaf import Leaf, Observation
from .._records import Measurement


@dataclass
class Evidence:
    """One step of the float64 walk in which JAX starts from where PyTorch stands.

    Args:
      n: number of the step, from 1.
      loop: PyTorch's, as it stood before the step; nothing here changes it.
      window: the microbatches, as PyTorch's half was given them.
      rng: PyTorch's random state before the step.
      stood: both halves before the step.
      right: what PyTorch's step made of it.
      seen: what JAX's made.
      measured: how each leaf was judged.
      schedule: PyTorch's learning rates, of each group, after 0, 1, ... steps of the walk.
      rates: what the JAX half shows of them, by the number of steps taken.
      program, state, batch: JAX's step, as it was written, and what it was given.
      skipped: the steps so far that PyTorch's scaler skipped.
      last: the step before, if there was one.
    """

    n: int
    loop: TorchLoop
    window: list[Any]
    rng: Any
    stood: Observation
    right: Observation
    seen: Observation
    measured: Mapping[Leaf, Measurement]
    schedule: list[list[float]]
    rates: Mapping[int, Observation]
    program: Callable[[Any, Any], Any] | None
    state: Any
    batch: Any
    skipped: frozenset[int] = frozenset()
    last: Evidence | None = None
    kept: dict[Any, Any] = field(default_factory=dict)  # replays, by what was changed in them

    @property
    def names(self) -> list[str]:
        """The parameters."""
        return [name for name, _ in self.loop.model.named_parameters()]

    @property
    def skips(self) -> bool:
        """Whether PyTorch's scaler skipped the step."""
        return self.n in self.skipped

    @property
    def takes_closure(self) -> bool:
        """Whether a step of the optimizer is several, which no gradient replays: LBFGS."""
        return isinstance(self.loop.optimizer, torch.optim.LBFGS)

    def shows(self, kind: str) -> bool:
        """Whether the JAX half lets any leaf of this kind be seen."""
        return any(leaf.kind == kind for leaf in self.seen)

    def gradients(self, kind: str = "gradient") -> dict[str, torch.Tensor] | None:
        """JAX's own, by parameter; None if it does not show all of them."""
        leaves = {name: Leaf(kind, name) for name in self.names}
        if not all(leaf in self.seen for leaf in leaves.values()):
            return None
        return {name: torch.tensor(self.seen[leaf]) for name, leaf in leaves.items()}


def rates_of(loop: TorchLoop, steps: int, taken: int = 0) -> list[list[float]]:
    """The learning rates of each group of ``loop`` now and after each of ``steps`` steps.

    Of a scheduler that watches a metric, the one of now is all that is known. One that ends
    earlier, as OneCycleLR does, stays at its last rate.

    Args:
      loop: left as it is.
      steps: to look ahead.
      taken: optimizer steps that it has made.
    """
    loop = copy_loop(loop)
    rates, goes_on = [_rates(loop)], not isinstance(loop.scheduler, ReduceLROnPlateau)
    for n in range(taken + 1, taken + steps + 1):
        if loop.scheduler is not None and goes_on and n % loop.scheduler_every == 0:
            loop.optimizer._opt_called = True  # type: ignore[attr-defined]
            try:
                loop.scheduler.step()
            except ValueError:
                goes_on = False
        rates.append(_rates(loop))
    return rates


def _rates(loop: TorchLoop) -> list[float]:
    return [float(group["lr"]) for group in loop.optimizer.param_groups]

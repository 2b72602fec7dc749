"""PyTorch's step, taken apart, and what may be changed in it. ``_replay`` runs it.

A ``Step`` is PyTorch's own with some parts changed. A ``Variant`` has a change for each hook
that it changes: a function of the evidence and of what that part of the step has so far.

    hook        the change takes, and returns
    window      the microbatches
    call        a ``Call`` of the forward pass, and returns another or None (without evidence)
    share       the share of each microbatch in the gradients
    report      the loss that is shown, a ``Sum``
    gradient    the gradients, a ``Sum``
    buffer      the buffers after the step, by name
    scale       the ``Scale`` before and after the step, and returns the one after
    clip        a ``Clip``
    rate        the learning rates of each group, by the number of steps taken
    skip        whether the scaler skips the step
    optimizer   the loop, whose ``.grad`` and rates are set; changed in place, before its step
    update      the loop after its step; changed in place
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .._leaf import SCHEDULED
from ._evidence import Evidence
from ._mistake import Variant


Gradients = dict[str, torch.Tensor]

# Part -> the kinds of leaves that it makes, in the order of the step. What the schedule makes
# of step n is used by step n + 1, so it is looked at before the optimizer.
PARTS = {
    "backward": ("loss", "gradient", "buffer"),
    "unscale": ("scaler",),
    "clip": ("gradient norm", "clipped gradient"),
    "schedule": SCHEDULED,
    "optimizer": ("state", "update", "parameter"),
}
PART_OF = {
    **dict.fromkeys(("window", "call", "share", "report", "gradient", "buffer"), "backward"),
    "scale": "unscale",
    "clip": "clip",
    "rate": "schedule",
    **dict.fromkeys(("skip", "optimizer", "update"), "optimizer"),
}


class Pass(NamedTuple):
    """One microbatch, forward and backward."""

    loss: torch.Tensor
    grads: Gradients
    buffers: dict[str, torch.Tensor]  # afterwards


class Sum(NamedTuple):
    """What the passes of a step add up to."""

    passes: list[Pass]
    shares: list[float]
    total: Any  # a loss, or gradients


class Scale(NamedTuple):
    """Where a gradient scaler stands."""

    scale: float
    growth_tracker: int
    found_inf: bool = False


class Clip(NamedTuple):
    """Gradients before and after clipping, and their norm before, if it is asked for."""

    given: Gradients
    clipped: Gradients
    norm: torch.Tensor | None


@dataclass(frozen=True)
class Step:
    """PyTorch's step with ``variants``, in the order in which they were found."""

    variants: tuple[Variant, ...] = ()

    def but(self, *variants: Variant) -> Step:
        return Step(self.variants + variants)

    def changes(self, *hooks: str) -> list[Callable[..., Any]]:
        return [v.changes[hook] for v in self.variants for hook in hooks if hook in v.changes]

    def changed(self, hook: str, evidence: Evidence, value: Any) -> Any:
        for change in self.changes(hook):
            value = change(evidence, value)
        return value

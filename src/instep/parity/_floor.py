"""One unit in the last place: how PyTorch's own step answers to rounding."""

from __future__ import annotations

from typing import Any

import torch

from ..bridge._tensors import map_tensors
from ..bridge._torch_loop import TorchLoop
from ._judge import distance
from ._leaf import Leaf, Observation
from ._tolerance import NOISE


def move_inputs(tree: Any, generator: torch.Generator) -> Any:
    """A copy of a microbatch whose non-zero floating elements are moved by one ulp."""
    return map_tensors(
        lambda x: _moved(x, generator) if x.is_floating_point() else x.clone(), tree
    )


def disturb(
    loop: TorchLoop,
    reference: Observation,
    generator: torch.Generator,
    stage: str,
    seen: Observation,
) -> None:
    """What happens to a moved copy in the course of one step, in place.

    Args:
      loop: the copy.
      reference: what the undisturbed loop showed at this step.
      generator: of this copy's draws.
      stage: ``"start"`` or ``"gradient"``.
      seen: at ``"gradient"``, the gradients of the copy.
    """
    with torch.no_grad():
        if stage == "start":
            _move_weights(loop, generator)
        else:
            _redraw_noise(loop, reference, generator, seen)


def _move_weights(loop: TorchLoop, generator: torch.Generator) -> None:
    """Move every non-zero element of every parameter up or down by one ulp."""
    for p in loop.model.parameters():
        p.copy_(_moved(p, generator))


def _redraw_noise(
    loop: TorchLoop, reference: Observation, generator: torch.Generator, seen: Observation
) -> None:
    """Give random signs to every ``.grad`` that one ulp has shown to be noise.

    The gradient of a bias before BatchNorm is zero; what stands there is the rounding of
    one particular order of summation, and may hardly answer to one ulp although another
    order gives another number. Its sign carries nothing, so the moved copies draw it anew,
    and what that does to clipping, optimizer state, updates and parameters is their floor.
    """
    for name, p in loop.model.named_parameters():
        if p.grad is None:
            continue
        there = reference[Leaf("gradient", name)]
        change = distance(seen[Leaf("gradient", name)], there)
        if not change <= NOISE * abs(there).max(initial=0.0):
            up = torch.rand(p.shape, generator=generator).to(p.device) < 0.5
            p.grad.copy_(torch.where(up, p.grad, -p.grad))


def _moved(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    up = torch.rand(x.shape, generator=generator).to(x.device) < 0.5
    moved = torch.nextafter(x, torch.where(up, torch.inf, -torch.inf).to(x))
    return torch.where(x == 0, x, moved)

"""The PyTorch half of a walk: the loop's own step, observed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .._errors import ParityError
from ..bridge._torch_loop import TorchLoop, run_step
from ..bridge._transfer import tensor_array
from ._leaf import Leaf, Observation


def start(loop: TorchLoop) -> Observation:
    """What stands before the first step."""
    return _standing(loop)


def step(
    loop: TorchLoop,
    window: list[Any],
    n: int,
    disturb: Callable[[str, Observation], None] = lambda stage, seen: None,
) -> Observation:
    """Take step ``n`` of ``loop``, in place, and return every leaf that it made.

    ``disturb(stage, seen)`` may change what it finds: at ``"start"``, when the parameters
    before the step have been noted, and at ``"gradient"``, with the gradients.
    """
    seen: Observation = {}
    clips = loop.clip_grad_norm is not None or loop.clip_grad_value is not None
    before = _parameters(loop)
    disturb("start", seen)

    def watch(stage: str, value: Any) -> None:
        if stage == "gradient":
            seen[Leaf("loss", "loss")] = _array(value)
            gradients = _gradients(loop, "gradient")
            seen.update(gradients)
            disturb("gradient", gradients)
        elif stage == "clip" and clips:
            seen.update(_gradients(loop, "clipped gradient"))
            if value is not None:
                seen[Leaf("gradient norm", "total")] = _array(value)

    run_step(loop, window, n, watch)
    after = _standing(loop)
    updates = {Leaf("update", n): after[Leaf("parameter", n)] - p for n, p in before.items()}
    return seen | after | updates


def _standing(loop: TorchLoop) -> Observation:
    seen = {Leaf("parameter", name): value for name, value in _parameters(loop).items()}
    for name, buffer in loop.model.named_buffers():
        seen[Leaf("buffer", name)] = _array(buffer)
    for name, p in loop.model.named_parameters():
        for slot, value in loop.optimizer.state.get(p, {}).items():
            if value is not None:
                seen[Leaf("state", f"{name}.{slot}")] = _array(value)
    for i, group in enumerate(loop.optimizer.param_groups):
        seen[Leaf("lr", f"group {i}")] = _array(group["lr"])
    return seen


def _parameters(loop: TorchLoop) -> dict[str, np.ndarray]:
    return {name: _array(p) for name, p in loop.model.named_parameters()}


def _gradients(loop: TorchLoop, kind: str) -> Observation:
    """``.grad`` of every parameter; an absent one counts as zeros."""
    if all(p.grad is None for p in loop.model.parameters()):
        raise ParityError(
            "no parameter has a gradient after loss.backward(): loss_fn(model, microbatch) "
            "must use the model it is given, not one from outside."
        )
    return {
        Leaf(kind, name): _array(torch.zeros_like(p) if p.grad is None else p.grad)
        for name, p in loop.model.named_parameters()
    }


def _array(value: Any) -> np.ndarray:
    return tensor_array(value) if torch.is_tensor(value) else np.array(value)

"""The PyTorch half of a walk: the loop's own step, observed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..bridge._torch_loop import TorchLoop, run_step
from ._leaf import Leaf, Observation


def weights(loop: TorchLoop) -> dict[str, np.ndarray]:
    """Copies of all parameters and buffers, by ``state_dict`` name."""
    named = [*loop.model.named_parameters(), *loop.model.named_buffers()]
    return {name: _array(tensor) for name, tensor in named}


def load(loop: TorchLoop, arrays: dict[str, np.ndarray]) -> None:
    """Write parameters and buffers into the model of ``loop``."""
    with torch.no_grad():
        for name, tensor in [
            *loop.model.named_parameters(),
            *loop.model.named_buffers(),
        ]:
            tensor.copy_(torch.as_tensor(np.array(arrays[name])))


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
    before = _parameters(loop)
    disturb("start", seen)

    def watch(stage: str, value: Any) -> None:
        if stage == "gradient":
            seen[Leaf("loss", "loss")] = _array(value)
            gradients = _gradients(loop, "gradient")
            seen.update(gradients)
            disturb("gradient", gradients)
        elif stage == "clip" and (loop.clip_grad_norm or loop.clip_grad_value) is not None:
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
    return {
        Leaf(kind, name): _array(torch.zeros_like(p) if p.grad is None else p.grad)
        for name, p in loop.model.named_parameters()
    }


def _array(value: Any) -> np.ndarray:
    if torch.is_tensor(value):
        value = value.detach().cpu()
        value = value.float() if value.dtype is torch.bfloat16 else value
        return value.numpy().copy()
    return np.array(value)

"""The PyTorch half of a walk: the loop's own step, observed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils._python_dispatch import _disable_current_modes

from .._errors import ParityError
from ..bridge._arrays import tensor_to_array
from ..bridge._torch_loop import TorchLoop, run_step
from ._floor import OneUlp
from ._lbfgs_torch import of_torch
from ._leaf import FOUND_INF, PLATEAU, Leaf, Observation
from ._spill import spilled


class Exact(torch.amp.GradScaler):
    """A loop's scaler, whose own numbers stay in float32: neither lifted nor moved.

    What it scales and the step that it takes are lifted and moved as everything else.
    """

    def __init__(self, scaler: torch.amp.GradScaler):
        self.__dict__ = scaler.__dict__

    def scale(self, outputs):
        with _disable_current_modes():
            scale = super().scale(torch.ones((), dtype=torch.float32, device=outputs.device))
        return outputs * scale

    def unscale_(self, optimizer):
        with _disable_current_modes():
            super().unscale_(optimizer)

    def update(self, new_scale=None):
        with _disable_current_modes():
            super().update(new_scale)


def start(loop: TorchLoop) -> Observation:
    """What stands before the first step."""
    return _standing(loop)


def step(
    loop: TorchLoop,
    window: list[Any],
    n: int,
    one_ulp: OneUlp | None = None,
    reference: Observation | None = None,
) -> Observation:
    """Take step ``n`` of ``loop``, in place, and return every leaf that it made.

    With ``one_ulp`` the result of every operator is moved. With ``reference`` as well, so are
    the weights before the step, and gradients that differ from those of ``reference`` by more
    than noise are drawn anew.
    """
    seen: Observation = {}
    scaler = loop.scaler if loop.scaler and loop.scaler.is_enabled() else None
    if scaler is not None:
        loop = replace(loop, scaler=Exact(scaler))
    clips = loop.clip_grad_norm is not None or loop.clip_grad_value is not None
    before = _parameters(loop)

    def watch(stage: str, value: Any) -> None:
        with _disable_current_modes():  # looking is not moved
            if stage == "gradient":
                seen[Leaf("loss", "loss")] = _array(value)
                seen.update(_gradients(loop, "gradient"))
                if scaler is not None:
                    found = scaler._found_inf_per_device(loop.optimizer).values()
                    seen[FOUND_INF] = np.array(any(bool(x) for x in found), np.float32)
                if one_ulp is not None and reference is not None:
                    one_ulp.redraw_noise(loop, seen, reference)
            elif stage == "clip" and clips:
                seen.update(_gradients(loop, "clipped gradient"))
                if value is not None:
                    seen[Leaf("gradient norm", "total")] = _array(value)

    if one_ulp is None:
        run_step(loop, window, n, watch)
    else:
        if reference is not None:
            with torch.no_grad():
                for p in loop.model.parameters():
                    one_ulp.move(p)
        with one_ulp:
            run_step(loop, window, n, watch)
    after = _standing(loop)
    updates = {
        Leaf("update", name): spilled(after[Leaf("parameter", name)] - p)
        for name, p in before.items()
    }
    return seen | after | updates


def _standing(loop: TorchLoop) -> Observation:
    seen = {Leaf("parameter", name): value for name, value in _parameters(loop).items()}
    for name, buffer in loop.model.named_buffers():
        seen[Leaf("buffer", name)] = _array(buffer)
    if isinstance(loop.optimizer, torch.optim.LBFGS):
        seen |= of_torch(loop.optimizer, loop.model)
    else:
        for name, p in loop.model.named_parameters():
            for slot, value in loop.optimizer.state.get(p, {}).items():
                if value is not None:
                    seen[Leaf("state", f"{name}.{slot}")] = _array(value)
    for i, group in enumerate(loop.optimizer.param_groups):
        seen[Leaf("lr", f"group {i}")] = _array(group["lr"])
        if cycles_momentum(loop.scheduler):
            momentum = group["betas"][0] if "betas" in group else group["momentum"]
            seen[Leaf("momentum", f"group {i}")] = _array(momentum)
    if isinstance(loop.scheduler, ReduceLROnPlateau):
        seen |= {leaf: _array(getattr(loop.scheduler, leaf.name)) for leaf in PLATEAU}
    if loop.scaler is not None and (state := loop.scaler.state_dict()):
        seen[Leaf("scaler", "scale")] = np.array(state["scale"], np.float32)
        seen[Leaf("scaler", "growth_tracker")] = np.array(state["_growth_tracker"], np.int32)
    return seen


def cycles_momentum(scheduler: Any) -> bool:
    """Whether a scheduler, or one inside it, sets the momentum too."""
    inside = getattr(scheduler, "_schedulers", ())
    own = getattr(scheduler, "cycle_momentum", False)
    return own or any(cycles_momentum(one) for one in inside)


def dropouts(loop: TorchLoop) -> list[str]:
    """The names of the dropout layers that draw."""
    return [
        name
        for name, module in loop.model.named_modules()
        if isinstance(module, torch.nn.modules.dropout._DropoutNd)
        and module.training
        and module.p
    ]


def is_fresh(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it has taken no step. What keeps no count keeps nothing before the first."""
    return all(float(slots.get("step", 1)) == 0 for slots in optimizer.state.values() if slots)


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
    return spilled(tensor_to_array(value)) if torch.is_tensor(value) else np.array(value)

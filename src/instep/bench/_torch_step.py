"""The lines of a PyTorch loop that are timed, and what PyTorch's performance guide adds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from ..bridge._tensors import map_tensors
from ..bridge._torch_loop import TorchLoop


FUSED_ON = ("cpu", "cuda")  # of the devices that JAX has too


def train_step(loop: TorchLoop, model: Any, graphed: bool = False) -> Callable:
    """``(n, window) -> loss``: the loop of a PyTorch user, step ``n`` from 0.

    Args:
      loop: its optimizer and scheduler are stepped.
      model: given to its ``loss_fn``; compiled or not.
      graphed: whether CUDA graphs are replayed, which must be told where a step begins.
    """
    optimizer, scheduler, k = loop.optimizer, loop.scheduler, loop.accumulate
    parameters = list(loop.model.parameters())
    last = getattr(scheduler, "total_steps", math.inf)  # a OneCycleLR refuses to go further,
    first = {} if scheduler is None else copy.deepcopy(scheduler.state_dict())  # and begins

    def step(n: int, window: list[Any]) -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = None
        for microbatch in window:
            if graphed:
                torch.compiler.cudagraph_mark_step_begin()
            loss = loop.loss_fn(model, microbatch) / k
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        if loop.clip_grad_norm is not None:
            clip_grad_norm_(parameters, loop.clip_grad_norm)
        if loop.clip_grad_value is not None:
            clip_grad_value_(parameters, loop.clip_grad_value)
        optimizer.step()
        if scheduler is not None and (n + 1) % loop.scheduler_every == 0:
            if scheduler.last_epoch >= last:
                scheduler.load_state_dict(copy.deepcopy(first))
            scheduler.step()
        assert total is not None
        return total

    return step


def fuse(optimizer: torch.optim.Optimizer) -> bool:
    """Make a new optimizer one of fused kernels, in place; False where PyTorch has none.

    In place, since a scheduler holds on to its optimizer: what the constructor does with
    ``fused=True``.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    possible = (
        "fused" in optimizer.defaults
        and not optimizer.state
        and all(p.device.type in FUSED_ON and p.is_floating_point() for p in parameters)
        and not any(group.get("differentiable") for group in optimizer.param_groups)
    )
    if not possible:
        return False
    for group in optimizer.param_groups:
        group |= {"fused": True, "foreach": False}
    return True


def prepare(loop: TorchLoop, device: torch.device, channels_last: bool) -> None:
    """Onto the device, in place: parameters stay the objects that the optimizer has."""
    loop.model.to(device)
    if channels_last:
        loop.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for slots in loop.optimizer.state.values():
        for name, value in slots.items():
            if name != "step":
                slots[name] = map_tensors(lambda x: x.to(device), value)


def put(x: torch.Tensor, device: torch.device, channels_last: bool) -> torch.Tensor:
    x = x.to(device)
    image = channels_last and x.ndim == 4 and x.is_floating_point()
    return x.contiguous(memory_format=torch.channels_last) if image else x

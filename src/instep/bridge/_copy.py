"""Independent copies of a PyTorch loop: the user's objects stay as they are."""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from .._errors import ParityError
from ._computed import deep_copy
from ._outside import bound
from ._tensors import map_tensors
from ._torch_loop import TorchLoop


def copy_loop(loop: TorchLoop, dtype: torch.dtype | None = None) -> TorchLoop:
    """A joint deep copy of model, optimizer, scheduler and scaler, which stay connected.

    Args:
      loop: left untouched; its batches are shared with the copy.
      dtype: floating parameters, buffers and optimizer state of the copy are cast to it.

    Raises:
      ParityError: a parameter has a gradient hook, which no copy would have.
    """
    hooked = [
        name
        for name, p in loop.model.named_parameters()
        if p._backward_hooks or p._post_accumulate_grad_hooks
    ]
    if hooked:
        raise ParityError(
            f"parameters {hooked} have gradient hooks, which PyTorch does not copy, so the "
            f"copy would be another loop. Write what the hook does into loss_fn, or as "
            f"clip_grad_norm or clip_grad_value of the TorchLoop."
        )
    model, optimizer, scheduler, scaler = deep_copy(
        (loop.model, loop.optimizer, loop.scheduler, loop.scaler), loop.model
    )
    for hooks in ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"):
        getattr(optimizer, hooks).update(getattr(loop.optimizer, hooks))
    if isinstance(optimizer, torch.optim.LBFGS):
        _own_parameters(optimizer)
    if scheduler is not None:
        _count_steps(optimizer, scheduler)
    if dtype is not None:
        model.to(dtype)
        for slots in optimizer.state.values():
            for name, value in slots.items():
                if name != "step":
                    slots[name] = map_tensors(
                        lambda x: x.to(dtype) if x.is_floating_point() else x, value
                    )
    return replace(
        loop,
        model=model,
        loss_fn=bound(loop.loss_fn, loop.model),
        optimizer=optimizer,
        scheduler=scheduler,
        scaler=scaler,
    )


def _own_parameters(optimizer: torch.optim.LBFGS) -> None:
    """What PyTorch's copy of an LBFGS lacks: the list of its parameters, which it walks."""
    optimizer._params = optimizer.param_groups[0]["params"]
    optimizer._numel_cache = None


def _count_steps(optimizer, scheduler) -> None:
    """Let the scheduler see that the copied optimizer steps before it, as PyTorch does.

    PyTorch's own wrapper is lost when an optimizer is copied, and the scheduler would warn
    that ``optimizer.step`` was overridden.
    """
    step = type(optimizer).step

    @functools.wraps(step)
    def counted(*args, **kwargs):
        optimizer._opt_called = True
        return step(optimizer, *args, **kwargs)

    counted._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = counted
    optimizer._opt_called = getattr(scheduler, "_step_count", 2) > 1

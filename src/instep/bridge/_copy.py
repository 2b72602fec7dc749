"""Independent copies of a PyTorch loop: the user's objects stay as they are."""

from __future__ import annotations

import copy
import functools
from dataclasses import replace
from typing import Any

import torch

from ._torch_loop import TorchLoop


def copy_loop(loop: TorchLoop, dtype: torch.dtype | None = None) -> TorchLoop:
    """One joint deep copy of model, optimizer and scheduler, so that they stay connected.

    Args:
      loop: left untouched; its batches are shared with the copy.
      dtype: floating parameters, buffers and optimizer state of the copy are cast to it.
    """
    model, optimizer, scheduler = copy.deepcopy((loop.model, loop.optimizer, loop.scheduler))
    if scheduler is not None:
        _count_steps(optimizer, scheduler)
    if dtype is not None:
        model.to(dtype)
        for slots in optimizer.state.values():
            for name, value in slots.items():
                if torch.is_tensor(value) and name != "step":
                    slots[name] = to_dtype(value, dtype)
    return replace(loop, model=model, optimizer=optimizer, scheduler=scheduler)


def to_dtype(tree: Any, dtype: torch.dtype) -> Any:
    """Cast the floating tensors of a microbatch; containers are kept, the rest is shared."""
    cast = lambda x: to_dtype(x, dtype)  # noqa: E731
    if torch.is_tensor(tree):
        return tree.to(dtype) if tree.is_floating_point() else tree
    return map_containers(cast, tree)


def map_containers(fn, tree: Any) -> Any:
    """Apply ``fn`` to the members of a tuple, named tuple, list or dict; others unchanged."""
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*map(fn, tree))
    if isinstance(tree, tuple | list):
        return type(tree)(map(fn, tree))
    if isinstance(tree, dict):
        return {key: fn(value) for key, value in tree.items()}
    return tree


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
    optimizer._opt_called = scheduler._step_count > 1

"""What a loss function uses beside the model and the batch that it is given.

A teacher, the weights of a criterion or the model itself by its other name are found in a
closure, where no copy of the loop reaches them. So they are exchanged when an operator is
called with them: a tensor of the model for that of the model that is given, and what nothing
trains for a constant of the precision of the walk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only


class BoundLoss:
    """``loss_fn(model, batch)`` that means the same with a copy of its model.

    Args:
      loss_fn: ``(model, microbatch) -> scalar tensor``; it may hold ``model``, other modules
        and tensors.
      model: that of the loop.
    """

    def __init__(self, loss_fn: Any, model: nn.Module):
        self._loss_fn = loss_fn
        self._own = _named(model)

    def __call__(self, model: nn.Module, microbatch: Any) -> torch.Tensor:
        given = _named(model)
        if all(given[name] is x for name, x in self._own.items()):
            return self._loss_fn(model, microbatch)
        exchanged = {id(x): given[name] for name, x in self._own.items()}
        risen = _dtypes(given) == {torch.float64} != _dtypes(self._own)
        with _Exchanging(exchanged, risen):
            return self._loss_fn(model, microbatch)


def bound(loss_fn: Any, model: nn.Module) -> BoundLoss:
    """``loss_fn`` as one of copies of ``model``."""
    return loss_fn if isinstance(loss_fn, BoundLoss) else BoundLoss(loss_fn, model)


class _Exchanging(TorchFunctionMode):
    def __init__(self, exchanged: dict[int, torch.Tensor], risen: bool):
        super().__init__()
        self._exchanged, self._risen = exchanged, risen
        self._given = {id(x) for x in exchanged.values()}
        self._kept: list[torch.Tensor] = []  # an id is that of a tensor while it is kept

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(torch.Tensor, self._one, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _one(self, x: torch.Tensor) -> torch.Tensor:
        if id(x) in self._exchanged:
            return self._exchanged[id(x)]
        if id(x) in self._given or isinstance(x, FakeTensor):
            return x
        with _disable_current_modes():  # a constant, not an operator of the graph
            made = x.detach() if isinstance(x, nn.Parameter) else x
            if self._risen and made.is_floating_point():
                made = made.to(torch.float64)
        if made is not x:
            self._kept.append(x)
            self._exchanged[id(x)] = made
        return made


def _named(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def _dtypes(tensors: dict[str, torch.Tensor]) -> set[torch.dtype]:
    return {x.dtype for x in tensors.values() if x.is_floating_point()}

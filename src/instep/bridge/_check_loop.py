"""What a PyTorch loop must be, so that its meaning can be told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ._plateau import check_metric


if TYPE_CHECKING:
    from ._torch_loop import TorchLoop


def check_loop(loop: TorchLoop) -> None:
    """Raise TypeError or ValueError, with the remedy, if ``loop`` has no clear meaning."""
    if not isinstance(loop.model, nn.Module):
        raise TypeError(f"model is a {type(loop.model).__name__}; give an nn.Module.")
    if not isinstance(loop.optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer is a {type(loop.optimizer).__name__}; give one torch.optim.Optimizer. "
            f"A loop with several, such as a GAN, is written with the verbs: docs/gan.md."
        )
    if loop.accumulate < 1 or loop.scheduler_every < 1:
        raise ValueError(
            f"accumulate and scheduler_every count from 1; got "
            f"{loop.accumulate} and {loop.scheduler_every}."
        )
    _check_batches(loop.batches)
    _check_tensors(loop)
    if not isinstance(loop.scaler, torch.amp.GradScaler | None):
        raise TypeError(
            f"scaler is a {type(loop.scaler).__name__}; give a torch.amp.GradScaler."
        )
    check_metric(loop.scheduler, loop.metric)
    enabled = loop.scaler is not None and loop.scaler.is_enabled()
    if enabled and isinstance(loop.optimizer, torch.optim.LBFGS):
        raise ValueError(
            "LBFGS calls the loss itself (a closure), which a GradScaler does not support, in "
            "PyTorch neither. Leave the scaler out."
        )


def check_loss(loss: Any) -> None:
    """Raise TypeError unless ``loss`` is what a ``loss_fn`` must return: a scalar tensor."""
    if not torch.is_tensor(loss) or loss.numel() != 1:
        raise TypeError(f"loss_fn must return a scalar tensor; it returned {_kind(loss)}.")


def _kind(value: Any) -> str:
    if isinstance(value, tuple | list | dict):
        return f"a {type(value).__name__} of {len(value)}. Return the loss alone"
    if isinstance(value, int | float | torch.SymInt | torch.SymFloat):
        return "a number, which has no gradient. Leave out the .item() or float()"
    if torch.is_tensor(value):
        return f"a tensor of shape {tuple(value.shape)}. Reduce it: loss.mean()"
    return f"a {type(value).__name__}"


def _check_batches(batches: Any) -> None:
    if isinstance(batches, Iterator):
        raise TypeError(
            f"batches is a {type(batches).__name__}, which is used up after one pass, and a "
            f"loop goes over its batches once for every epoch. Give a re-iterable (a "
            f"DataLoader, a list), or a callable that returns a fresh iterator."
        )
    if not (
        isinstance(batches, Iterable) or hasattr(batches, "__getitem__") or callable(batches)
    ):
        raise TypeError(
            f"batches is a {type(batches).__name__}; give an iterable of microbatches, or a "
            f"callable that returns one."
        )


def _check_tensors(loop: TorchLoop) -> None:
    """The optimizer trains parameters of the model, and they hold numbers."""
    parameters = dict(loop.model.named_parameters())
    inside = {id(p) for p in parameters.values()}
    outside = [
        f"group {i}: shape {tuple(p.shape)}"
        for i, group in enumerate(loop.optimizer.param_groups)
        for p in group["params"]
        if id(p) not in inside
    ]
    if outside:
        raise ValueError(
            f"the optimizer trains tensors that are not parameters of the model "
            f"({', '.join(outside)}), so they would be neither copied nor compared. "
            f"Register them in the model as nn.Parameter."
        )
    tensors = parameters | dict(loop.model.named_buffers())
    meta = [name for name, x in tensors.items() if x.is_meta]
    if meta:
        raise ValueError(
            f"{', '.join(meta[:3])} of the model are on the meta device, without numbers. Load "
            f"the weights first, for example model.to_empty(device='cpu') and load_state_dict."
        )

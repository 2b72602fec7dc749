"""A PyTorch training loop, described in PyTorch's own objects, and its meaning as code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_


Microbatch = Any
LossFn = Callable[[nn.Module, Microbatch], torch.Tensor]
Batches = Iterable[Microbatch] | Callable[[], Iterable[Microbatch]]


@dataclass(frozen=True)
class TorchLoop:
    """The lines of a PyTorch loop, as a record. ``run_step`` and ``windows`` say what it means.

    Args:
      model: the module, in the mode (train or eval) it is trained in.
      loss_fn: ``(model, microbatch) -> scalar``: the user's own lines from the forward pass
        to the loss, not divided by ``accumulate``.
      optimizer: any ``torch.optim.Optimizer`` that steps without a closure.
      batches: microbatches, as a ``DataLoader`` yields them: a re-iterable, begun anew at
        every epoch, or a callable without arguments that returns one.
      scheduler: stepped after the optimizer.
      scheduler_every: optimizer steps per scheduler step, for example those of an epoch.
      clip_grad_norm: ``max_norm`` of ``clip_grad_norm_``.
      clip_grad_value: ``clip_value`` of ``clip_grad_value_``, after ``clip_grad_norm``.
      accumulate: microbatches per optimizer step. A short window at the end of an epoch is
        dropped.
      scaler: a ``torch.amp.GradScaler``, whose gradients are unscaled before clipping. The
        scheduler also steps after a step that it skips.
    """

    model: nn.Module
    loss_fn: LossFn
    optimizer: torch.optim.Optimizer
    batches: Batches
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None
    scheduler_every: int = 1
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    accumulate: int = 1
    scaler: torch.amp.GradScaler | None = None

    def __post_init__(self):
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model is a {type(self.model).__name__}; give an nn.Module.")
        if self.accumulate < 1 or self.scheduler_every < 1:
            raise ValueError(
                f"accumulate and scheduler_every count from 1; got "
                f"{self.accumulate} and {self.scheduler_every}."
            )
        inside = {id(p) for p in self.model.parameters()}
        groups = self.optimizer.param_groups
        outside = [
            f"group {i}: shape {tuple(p.shape)}"
            for i, group in enumerate(groups)
            for p in group["params"]
            if id(p) not in inside
        ]
        if outside:
            raise ValueError(
                f"the optimizer trains tensors that are not parameters of the model "
                f"({', '.join(outside)}), so they would be neither copied nor compared. "
                f"Register them in the model as nn.Parameter."
            )
        if not isinstance(self.scaler, torch.amp.GradScaler | None):
            raise TypeError(
                f"scaler is a {type(self.scaler).__name__}; give a torch.amp.GradScaler."
            )
        if isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
            raise ValueError("ReduceLROnPlateau steps on a metric, which TorchLoop has not.")
        if isinstance(self.optimizer, torch.optim.LBFGS):
            raise ValueError(
                "LBFGS calls the loss itself (a closure); TorchLoop describes optimizers "
                "that step once per gradient. Compare its gradients with another optimizer."
            )


def windows(loop: TorchLoop) -> Iterator[list[Microbatch]]:
    """Lists of ``accumulate`` microbatches, epoch after epoch, without end.

    Raises:
      ValueError: an epoch has fewer than ``accumulate`` microbatches.
    """
    while True:
        batches = iter(loop.batches() if callable(loop.batches) else loop.batches)
        window = list(islice(batches, loop.accumulate))
        if len(window) < loop.accumulate:
            raise ValueError(
                f"batches yielded {len(window)} microbatches in an epoch; "
                f"accumulate={loop.accumulate} needs at least that many. Pass a re-iterable "
                f"(a DataLoader, a list) or a callable that returns a fresh iterator; a "
                f"generator is used up after one pass."
            )
        while len(window) == loop.accumulate:
            yield window
            window = list(islice(batches, loop.accumulate))


def run_step(
    loop: TorchLoop,
    window: list[Microbatch],
    n: int,
    watch: Callable[[str, Any], None] = lambda stage, value: None,
) -> torch.Tensor:
    """One optimizer step of ``loop``, in place.

    Args:
      loop: its model, optimizer and scheduler are changed.
      window: the microbatches of this step.
      n: number of this step, from 1.
      watch: called as ``watch(stage, value)`` after the stages ``"gradient"`` (value: the
        mean loss; gradients are unscaled), ``"clip"`` (the norm before clipping, or None)
        and ``"update"`` (None), while ``.grad`` and the parameters stand as that stage left
        them.

    Returns:
      The mean loss of the window, shape ().
    """
    scaler = loop.scaler or torch.amp.GradScaler("cpu", enabled=False)
    loop.optimizer.zero_grad(set_to_none=True)
    losses = []
    for microbatch in window:
        loss = loop.loss_fn(loop.model, microbatch)
        if not torch.is_tensor(loss) or loss.numel() != 1:
            raise TypeError(f"loss_fn must return a scalar tensor; it returned {_kind(loss)}.")
        loss = loss / len(window)
        scaler.scale(loss).backward()
        losses.append(loss.detach())
    mean_loss = torch.stack(losses).sum()
    scaler.unscale_(loop.optimizer)
    watch("gradient", mean_loss)

    norm = None
    if loop.clip_grad_norm is not None:
        norm = clip_grad_norm_(loop.model.parameters(), loop.clip_grad_norm)
    if loop.clip_grad_value is not None:
        clip_grad_value_(loop.model.parameters(), loop.clip_grad_value)
    watch("clip", norm)

    scaler.step(loop.optimizer)
    scaler.update()
    if loop.scheduler is not None and n % loop.scheduler_every == 0:
        loop.scheduler.step()
    watch("update", None)
    return mean_loss


def _kind(value: Any) -> str:
    shape = f" of shape {tuple(value.shape)}" if torch.is_tensor(value) else ""
    return f"a {type(value).__name__}{shape}"

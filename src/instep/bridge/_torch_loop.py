"""A PyTorch training loop, described in PyTorch's own objects, and its meaning as code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ._check_loop import check_loop, check_loss


Microbatch = Any
LossFn = Callable[[nn.Module, Microbatch], torch.Tensor]
Batches = Iterable[Microbatch] | Callable[[], Iterable[Microbatch]]


@dataclass(frozen=True)
class TorchLoop:
    """The lines of a PyTorch loop, as a record; ``run_step`` and ``windows`` say what it means.

    Args:
      model: the module, in the mode (train or eval) it is trained in.
      loss_fn: ``(model, microbatch) -> scalar``: the user's own lines from the forward pass
        to the loss, not divided by ``accumulate``.
      optimizer: any ``torch.optim.Optimizer`` that steps without a closure, or ``LBFGS``,
        whose closure is ``zero_grad``, the window, and clipping. Two optimizers, as of a GAN,
        are written with the verbs of instep, see ``docs/gan.md``.
      batches: microbatches, as a ``DataLoader`` yields them: a re-iterable, begun anew at
        every epoch, or a callable without arguments that returns one.
      scheduler: stepped after the optimizer.
      scheduler_every: optimizer steps per scheduler step, for example those of an epoch.
      metric: what a ``ReduceLROnPlateau`` steps on, and no other scheduler: a function of the
        mean loss of the window, ``lambda loss: loss``. It gets a float in PyTorch and a
        traced array in JAX.
      clip_grad_norm: ``max_norm`` of ``clip_grad_norm_``.
      clip_grad_value: ``clip_value`` of ``clip_grad_value_``, after ``clip_grad_norm``.
      accumulate: microbatches per optimizer step.
      scaler: a ``torch.amp.GradScaler``, whose gradients are unscaled before clipping. The
        scheduler also steps after a step that it skips.
      drop_last: what becomes of a short window at the end of an epoch: it is dropped, or
        (False) divided by its own length. No window reaches into the next epoch.

    Raises:
      TypeError, ValueError: a field is not what it should be, or two of them do not go
        together.
    """

    model: nn.Module
    loss_fn: LossFn
    optimizer: torch.optim.Optimizer
    batches: Batches
    scheduler: LRScheduler | None = None
    scheduler_every: int = 1
    metric: Callable[[Any], Any] | None = None
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    accumulate: int = 1
    scaler: torch.amp.GradScaler | None = None
    drop_last: bool = True

    def __post_init__(self):
        check_loop(self)


def windows(loop: TorchLoop) -> Iterator[list[Microbatch]]:
    """Lists of ``accumulate`` microbatches, epoch after epoch, without end.

    With ``drop_last=False`` the last one of an epoch may be shorter.

    Raises:
      ValueError: an epoch has no window.
    """
    least = loop.accumulate if loop.drop_last else 1
    while True:
        batches = iter(loop.batches() if callable(loop.batches) else loop.batches)
        window = list(islice(batches, loop.accumulate))
        if len(window) < least:
            raise ValueError(
                f"batches yielded {len(window)} microbatches in an epoch; "
                f"accumulate={loop.accumulate} with drop_last={loop.drop_last} needs at least "
                f"{least}. Pass a re-iterable (a DataLoader, a list) or a callable that "
                f"returns a fresh iterator; a generator is used up after one pass."
            )
        while len(window) >= least:
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
        them. Of the evaluations of ``LBFGS`` it sees the first.

    Returns:
      The mean loss of the window, shape ().
    """
    scaler = loop.scaler or torch.amp.GradScaler("cpu", enabled=False)
    evaluations = 0

    def closure() -> torch.Tensor:
        nonlocal evaluations
        evaluations += 1
        mean_loss = _backward(loop, window, scaler)
        scaler.unscale_(loop.optimizer)
        if evaluations == 1:
            watch("gradient", mean_loss)
        norm = _clip(loop)
        if evaluations == 1:
            watch("clip", norm)
        return mean_loss

    if isinstance(loop.optimizer, torch.optim.LBFGS):
        mean_loss = loop.optimizer.step(closure)
    else:
        mean_loss = closure()
        scaler.step(loop.optimizer)
        scaler.update()
    if loop.scheduler is not None and n % loop.scheduler_every == 0:
        _step_scheduler(loop, mean_loss)
    watch("update", None)
    return mean_loss


def _backward(
    loop: TorchLoop, window: list[Microbatch], scaler: torch.amp.GradScaler
) -> torch.Tensor:
    """``zero_grad``, then ``loss.backward()`` of every microbatch; the mean loss."""
    loop.optimizer.zero_grad(set_to_none=True)
    losses = []
    for microbatch in window:
        loss = loop.loss_fn(loop.model, microbatch)
        check_loss(loss)
        loss = loss / len(window)
        scaler.scale(loss).backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


def _clip(loop: TorchLoop) -> torch.Tensor | None:
    """Clip, and return the norm before that."""
    norm = None
    if loop.clip_grad_norm is not None:
        norm = clip_grad_norm_(loop.model.parameters(), loop.clip_grad_norm)
    if loop.clip_grad_value is not None:
        clip_grad_value_(loop.model.parameters(), loop.clip_grad_value)
    return norm


def _step_scheduler(loop: TorchLoop, mean_loss: torch.Tensor) -> None:
    if isinstance(loop.scheduler, ReduceLROnPlateau):
        assert loop.metric is not None
        loop.scheduler.step(loop.metric(mean_loss.item()))
    elif loop.scheduler is not None:
        loop.scheduler.step()

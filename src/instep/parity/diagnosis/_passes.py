"""The forward and backward pass of a step, replayed: losses, gradients and buffers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from ...bridge._copy import copy_loop
from ...bridge._tensors import to_dtype
from ...bridge._torch_loop import TorchLoop
from .._floor import OneUlp
from .._leaf import Leaf, Observation
from .._settings import set_random_state
from .._torch_side import _array
from ._evidence import Evidence
from ._rewrite import Call, Rewriting, calls_of
from ._step import Gradients, Pass, Step, Sum


KEPT = 1 << 30  # bytes of the gradients of replays


def loss(evidence: Evidence, step: Step) -> Observation:
    """The loss alone, without a backward pass."""
    key = ("loss", *step.changes("window", "call"))
    if key not in evidence.kept:
        evidence.kept[key] = [Pass(x, {}, {}) for x in _forward(evidence, step)]
    return {Leaf("loss", "loss"): _array(_loss(evidence, step, evidence.kept[key]))}


def passes(evidence: Evidence, step: Step, moved: OneUlp | None = None) -> list[Pass]:
    """Every microbatch by itself, its loss not divided by their number."""
    if moved is not None:
        return _passes(evidence, step, moved)
    key = ("passes", *step.changes("window", "call"))
    if key not in evidence.kept:
        held = [x for x in evidence.kept if x[0] == "passes"]
        one = sum(x.nbytes for x in evidence.loop.model.parameters()) * len(evidence.window)
        for oldest in held[: max(0, len(held) + 1 - KEPT // max(one, 1))]:
            del evidence.kept[oldest]
        evidence.kept[key] = _passes(evidence, step, None)
    return evidence.kept[key]


def calls(evidence: Evidence) -> list[Call]:
    """The calls of PyTorch's forward pass of the first microbatch."""
    if "calls" not in evidence.kept:
        work = work_of(evidence)
        (first, *_) = window_of(evidence, Step())
        evidence.kept["calls"] = calls_of(work.model, lambda: work.loss_fn(work.model, first))
    return evidence.kept["calls"]


def backward(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    done = passes(evidence, step, moved)
    grads, buffers = gradients(evidence, step, done), dict(done[-1].buffers)
    seen = {Leaf("loss", "loss"): _array(_loss(evidence, step, done))}
    seen |= {Leaf("gradient", name): _array(g) for name, g in grads.items()}
    buffers = step.changed("buffer", evidence, Sum(done, [], buffers)).total
    return seen | {Leaf("buffer", name): _array(x) for name, x in buffers.items()}


def _loss(evidence: Evidence, step: Step, done: Sequence[Pass]) -> torch.Tensor:
    shares = [1 / len(done)] * len(done)
    total = torch.stack([s * p.loss for s, p in zip(shares, done, strict=True)]).sum()
    return step.changed("report", evidence, Sum(list(done), shares, total)).total


def gradients(evidence: Evidence, step: Step, done: Sequence[Pass]) -> Gradients:
    shares = step.changed("share", evidence, [1 / len(done)] * len(done))
    total = {
        name: sum(s * p.grads[name] for s, p in zip(shares, done, strict=True))
        for name in evidence.names
    }
    return step.changed("gradient", evidence, Sum(list(done), shares, total)).total


def work_of(evidence: Evidence) -> TorchLoop:
    """A copy to compute gradients in, as it stood before the step."""
    if "work" not in evidence.kept:
        evidence.kept["work"] = copy_loop(evidence.loop)
    work: TorchLoop = evidence.kept["work"]
    with torch.no_grad():
        for x, there in zip(
            [*work.model.parameters(), *work.model.buffers()],
            [*evidence.loop.model.parameters(), *evidence.loop.model.buffers()],
            strict=True,
        ):
            x.copy_(there)
    set_random_state(evidence.rng)
    return work


def window_of(evidence: Evidence, step: Step) -> list[Any]:
    """Its own copy of the microbatches: PyTorch may write into them."""
    return step.changed("window", evidence, to_dtype(evidence.window, torch.float64))


def rewriting(work: TorchLoop, step: Step):
    rewrites = step.changes("call")
    return Rewriting(work.model, rewrites) if rewrites else nullcontext()


def _forward(evidence: Evidence, step: Step) -> list[torch.Tensor]:
    work = work_of(evidence)
    losses = []
    for microbatch in window_of(evidence, step):
        with torch.no_grad(), rewriting(work, step):
            losses.append(work.loss_fn(work.model, microbatch))
    return losses


def _passes(evidence: Evidence, step: Step, moved: OneUlp | None) -> list[Pass]:
    work, window = work_of(evidence), window_of(evidence, step)
    if moved is not None:
        window = moved.moved_window(window)
        with torch.no_grad():
            for p in work.model.parameters():
                moved.move(p)
    done = []
    for microbatch in window:
        work.optimizer.zero_grad(set_to_none=True)
        with moved or nullcontext():
            with rewriting(work, step):
                loss = work.loss_fn(work.model, microbatch)
            loss.backward()
        grads = {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in work.model.named_parameters()
        }
        for p in work.model.parameters():
            p.grad = None
        buffers = {name: x.clone() for name, x in work.model.named_buffers()}
        done.append(Pass(loss.detach(), grads, buffers))
    return done

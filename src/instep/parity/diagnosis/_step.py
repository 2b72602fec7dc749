"""PyTorch's step, taken apart: each part is replayed on what JAX itself made before it.

A ``Step`` is PyTorch's own with some parts changed. A ``Variant`` has a change for each hook
that it changes: a function of the evidence and of what that part of the step has so far.

    hook        the change takes, and returns
    window      the microbatches
    call        a ``Call`` of the forward pass, and returns another or None (without evidence)
    share       the share of each microbatch in the gradients
    report      the loss that is shown, a ``Sum``
    gradient    the gradients, a ``Sum``
    buffer      the buffers after the step, by name
    scale       the ``Scale`` before and after the step, and returns the one after
    clip        a ``Clip``
    rate        the learning rates of each group, by the number of steps taken
    skip        whether the scaler skips the step
    optimizer   the loop, whose ``.grad`` and rates are set; changed in place, before its step
    update      the loop after its step; changed in place
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ...bridge._copy import copy_loop
from ...bridge._tensors import to_dtype
from ...bridge._torch_loop import TorchLoop, _clip, run_step
from .._floor import OneUlp
from .._leaf import SCHEDULED, Leaf, Observation
from .._settings import set_random_state
from .._torch_side import _array, _standing
from ._evidence import Evidence
from ._mistake import Variant
from ._rewrite import Call, Rewriting, calls_of


Gradients = dict[str, torch.Tensor]

# Part -> the kinds of leaves that it makes, in the order of the step. What the schedule makes
# of step n is used by step n + 1, so it is looked at before the optimizer.
PARTS = {
    "backward": ("loss", "gradient", "buffer"),
    "unscale": ("scaler",),
    "clip": ("gradient norm", "clipped gradient"),
    "schedule": SCHEDULED,
    "optimizer": ("state", "update", "parameter"),
}
PART_OF = {
    **dict.fromkeys(("window", "call", "share", "report", "gradient", "buffer"), "backward"),
    "scale": "unscale",
    "clip": "clip",
    "rate": "schedule",
    **dict.fromkeys(("skip", "optimizer", "update"), "optimizer"),
}


class Pass(NamedTuple):
    """One microbatch, forward and backward."""

    loss: torch.Tensor
    grads: Gradients
    buffers: dict[str, torch.Tensor]  # afterwards


class Sum(NamedTuple):
    """What the passes of a step add up to."""

    passes: list[Pass]
    shares: list[float]
    total: Any  # a loss, or gradients


class Scale(NamedTuple):
    """Where a gradient scaler stands."""

    scale: float
    growth_tracker: int
    found_inf: bool = False


class Clip(NamedTuple):
    """Gradients before and after clipping, and their norm before, if it is asked for."""

    given: Gradients
    clipped: Gradients
    norm: torch.Tensor | None


@dataclass(frozen=True)
class Step:
    """PyTorch's step with ``variants``, in the order in which they were found."""

    variants: tuple[Variant, ...] = ()

    def but(self, *variants: Variant) -> Step:
        return Step(self.variants + variants)

    def changes(self, *hooks: str) -> list[Callable[..., Any]]:
        return [v.changes[hook] for v in self.variants for hook in hooks if hook in v.changes]

    def changed(self, hook: str, evidence: Evidence, value: Any) -> Any:
        for change in self.changes(hook):
            value = change(evidence, value)
        return value


def replay(
    part: str, evidence: Evidence, step: Step, moved: OneUlp | None = None
) -> Observation:
    """What this part of ``step`` makes of what JAX made before it.

    Args:
      part: a key of PARTS.
      evidence: of the step that JAX took.
      step: whose other parts count only where JAX does not show what they made.
      moved: rounds it at random.
    """
    return _REPLAYS[part](evidence, step, moved)


def loss(evidence: Evidence, step: Step) -> Observation:
    """The loss alone, without a backward pass."""
    key = ("loss", *map(id, step.changes("window", "call")))
    if key not in evidence.kept:
        evidence.kept[key] = [Pass(x, {}, {}) for x in _forward(evidence, step)]
    return {Leaf("loss", "loss"): _array(_loss(evidence, step, evidence.kept[key]))}


def passes(evidence: Evidence, step: Step, moved: OneUlp | None = None) -> list[Pass]:
    """Every microbatch by itself, its loss not divided by their number."""
    if moved is not None:
        return _passes(evidence, step, moved)
    key = ("passes", *map(id, step.changes("window", "call")))
    if key not in evidence.kept:
        evidence.kept[key] = _passes(evidence, step, None)
    return evidence.kept[key]


def calls(evidence: Evidence) -> list[Call]:
    """The calls of PyTorch's forward pass of the first microbatch."""
    if "calls" not in evidence.kept:
        work = _work(evidence)
        (first, *_) = window_of(evidence, Step())
        evidence.kept["calls"] = calls_of(work.model, lambda: work.loss_fn(work.model, first))
    return evidence.kept["calls"]


def _backward(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    done = passes(evidence, step, moved)
    grads, buffers = _gradients(evidence, step, done), dict(done[-1].buffers)
    seen = {Leaf("loss", "loss"): _array(_loss(evidence, step, done))}
    seen |= {Leaf("gradient", name): _array(g) for name, g in grads.items()}
    buffers = step.changed("buffer", evidence, Sum(done, [], buffers)).total
    return seen | {Leaf("buffer", name): _array(x) for name, x in buffers.items()}


def _loss(evidence: Evidence, step: Step, done: Sequence[Pass]) -> torch.Tensor:
    shares = [1 / len(done)] * len(done)
    total = torch.stack([s * p.loss for s, p in zip(shares, done, strict=True)]).sum()
    return step.changed("report", evidence, Sum(list(done), shares, total)).total


def _gradients(evidence: Evidence, step: Step, done: Sequence[Pass]) -> Gradients:
    shares = step.changed("share", evidence, [1 / len(done)] * len(done))
    total = {
        name: sum(s * p.grads[name] for s, p in zip(shares, done, strict=True))
        for name in evidence.names
    }
    return step.changed("gradient", evidence, Sum(list(done), shares, total)).total


def _unscale(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    """What the scaler makes of where JAX's stood."""
    scaler = evidence.loop.scaler
    if scaler is None or not scaler.is_enabled():
        return {}
    before = _scaler_before(evidence)
    after = updated(evidence, before, scaler.get_growth_interval())
    for change in step.changes("scale"):
        after = change(evidence, (before, after))
    return {Leaf("scaler", name): np.asarray(value) for name, value in after._asdict().items()}


def updated(evidence: Evidence, before: Scale, growth_interval: int) -> Scale:
    """``scaler.update()``"""
    scaler, found_inf = evidence.loop.scaler, evidence.skips
    assert scaler is not None
    due = before.growth_tracker + 1 == growth_interval
    factor = scaler.get_growth_factor() if due else 1.0
    factor = scaler.get_backoff_factor() if found_inf else factor
    count = 0 if found_inf or due else before.growth_tracker + 1
    return Scale(float(np.float32(before.scale * factor)), count, found_inf)


def _scaler_before(evidence: Evidence) -> Scale:
    stood = evidence.stood if evidence.last is None else evidence.last.seen
    own = (evidence.stood, stood)
    scale, tracker = (
        next(x[leaf] for x in reversed(own) if leaf in x)
        for leaf in (Leaf("scaler", "scale"), Leaf("scaler", "growth_tracker"))
    )
    return Scale(float(scale), int(tracker))


def norm_of(grads: Gradients) -> torch.Tensor:
    """Of all of them together."""
    return torch.stack([g.norm() for g in grads.values()]).norm()


def _clipping(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    clip = _clipped(evidence, step, moved)
    seen = {Leaf("clipped gradient", name): _array(g) for name, g in clip.clipped.items()}
    if clip.norm is not None:
        seen[Leaf("gradient norm", "total")] = _array(clip.norm)
    return seen


def _clipped(evidence: Evidence, step: Step, moved: OneUlp | None) -> Clip:
    given = evidence.gradients()
    if given is None:
        given = _gradients(evidence, step, passes(evidence, step, moved))
    loop = evidence.loop
    for name, p in loop.model.named_parameters():
        p.grad = given[name].clone()
        if moved is not None:
            moved.move(p.grad)
    with moved or nullcontext():
        norm = _clip(loop)
        clipped = {
            name: p.grad for name, p in loop.model.named_parameters() if p.grad is not None
        }
        clip = step.changed("clip", evidence, Clip(given, clipped, norm))
    for p in loop.model.parameters():
        p.grad = None
    return clip


def _schedule(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    rates = _rates(evidence, step)
    return {
        Leaf("lr", f"group {i}"): np.asarray(rate) for i, rate in enumerate(rates[evidence.n])
    }


def _rates(evidence: Evidence, step: Step) -> list[list[float]]:
    """Of each group, after 0, 1, ... steps of the walk."""
    return step.changed("rate", evidence, evidence.schedule)


def _shown(seen: Observation) -> list[float]:
    return [float(value) for leaf, value in seen.items() if leaf.kind == "lr"]


def _optimizer(evidence: Evidence, step: Step, moved: OneUlp | None) -> Observation:
    loop = copy_loop(evidence.loop)
    clips = loop.clip_grad_norm is not None or loop.clip_grad_value is not None
    grads = evidence.gradients("clipped gradient" if clips else "gradient")
    if grads is None:
        grads = _clipped(evidence, step, moved).clipped
    before = {name: _array(p) for name, p in loop.model.named_parameters()}
    for name, p in loop.model.named_parameters():
        p.grad = grads[name].clone() if p.requires_grad else None
        if moved is not None:
            with torch.no_grad():
                moved.move(p)
                moved.move(p.grad)
    shown = _shown(evidence.rates.get(evidence.n - 1, {}))
    rates = shown or _rates(evidence, step)[evidence.n - 1]
    for group, rate in zip(loop.optimizer.param_groups, rates, strict=False):
        group["lr"] = rate
    with moved or nullcontext():
        step.changed("optimizer", evidence, loop)
        if not step.changed("skip", evidence, evidence.skips):
            _take(evidence, step, loop)
        with torch.no_grad():
            step.changed("update", evidence, loop)
    made = {
        leaf: value
        for leaf, value in _standing(loop).items()
        if leaf.kind in PARTS["optimizer"]
    }
    return made | {
        Leaf("update", name): made[Leaf("parameter", name)] - p for name, p in before.items()
    }


def _take(evidence: Evidence, step: Step, loop: TorchLoop) -> None:
    """``optimizer.step()``; of one that takes a closure, on the microbatches of the step."""
    if evidence.takes_closure:
        with _rewriting(loop, step):
            run_step(replace(loop, scheduler=None), window_of(evidence, step), evidence.n)
    else:
        loop.optimizer.step()


_REPLAYS = {
    "backward": _backward,
    "unscale": _unscale,
    "clip": _clipping,
    "schedule": _schedule,
    "optimizer": _optimizer,
}


def _work(evidence: Evidence) -> TorchLoop:
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


def _rewriting(work: TorchLoop, step: Step):
    rewrites = step.changes("call")
    return Rewriting(work.model, rewrites) if rewrites else nullcontext()


def _forward(evidence: Evidence, step: Step) -> list[torch.Tensor]:
    work = _work(evidence)
    losses = []
    for microbatch in window_of(evidence, step):
        with torch.no_grad(), _rewriting(work, step):
            losses.append(work.loss_fn(work.model, microbatch))
    return losses


def _passes(evidence: Evidence, step: Step, moved: OneUlp | None) -> list[Pass]:
    work, window = _work(evidence), window_of(evidence, step)
    if moved is not None:
        window = moved.moved_window(window)
        with torch.no_grad():
            for p in work.model.parameters():
                moved.move(p)
    done = []
    for microbatch in window:
        work.optimizer.zero_grad(set_to_none=True)
        with moved or nullcontext():
            with _rewriting(work, step):
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

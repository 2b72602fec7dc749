"""Each part of a step, replayed on what JAX itself made before it."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ...bridge._copy import copy_loop
from ...bridge._torch_loop import TorchLoop, _clip, run_step
from .._floor import OneUlp
from .._leaf import Leaf, Observation
from .._torch_side import _array, _standing
from ._evidence import Evidence
from ._passes import backward, gradients, passes, rewriting, window_of
from ._step import PARTS, Clip, Gradients, Scale, Step


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
        given = gradients(evidence, step, passes(evidence, step, moved))
    loop = evidence.loop
    for name, p in loop.model.named_parameters():
        p.grad = given[name].to(p.device, copy=True)
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
        p.grad = grads[name].to(p.device, copy=True) if p.requires_grad else None
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
        own = loop.loss_fn

        def loss_fn(model: torch.nn.Module, microbatch: Any) -> torch.Tensor:
            with rewriting(loop, step):
                return own(model, microbatch)

        alone = replace(loop, loss_fn=loss_fn, scheduler=None, metric=None)
        run_step(alone, window_of(evidence, step), evidence.n)
    else:
        loop.optimizer.step()


_REPLAYS = {
    "backward": backward,
    "unscale": _unscale,
    "clip": _clipping,
    "schedule": _schedule,
    "optimizer": _optimizer,
}

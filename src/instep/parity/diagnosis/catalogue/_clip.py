"""Mistakes in clipping. The catalogue knows PyTorch's: max_norm / (norm + 1e-6), at most 1."""

from __future__ import annotations

from collections.abc import Callable

import torch

from .._evidence import Evidence
from .._mistake import Variant, mistake
from .._replay import norm_of
from .._step import Clip, Sum


def _by(factor: Callable[[torch.Tensor, float], torch.Tensor | float]) -> dict[str, Callable]:
    """All gradients times ``factor(norm, max_norm)``."""

    def clip(evidence: Evidence, now: Clip) -> Clip:
        by = factor(norm_of(now.given), _max_norm(evidence))
        return now._replace(clipped={name: g * by for name, g in now.given.items()})

    return {"clip": clip}


def _max_norm(evidence: Evidence) -> float:
    return float(evidence.loop.clip_grad_norm or 1.0)


@mistake("Use instep.clip_grad_norm, or add PyTorch's 1e-6 to the norm.")
def clip_without_epsilon(evidence: Evidence):
    """Clipped by max_norm / norm, as optax does: PyTorch adds 1e-6 to the norm."""
    if evidence.loop.clip_grad_norm is not None:
        yield Variant(_by(lambda norm, most: (most / norm).clamp(max=1.0)))


@mistake("Clip only what is larger: the factor is min(1, max_norm / (norm + 1e-6)).")
def norm_always_scaled(evidence: Evidence):
    """Gradients are scaled to max_norm even where their norm is smaller."""
    if evidence.loop.clip_grad_norm is not None:
        yield Variant(_by(lambda norm, most: most / (norm + 1e-6)))
        yield Variant(_by(lambda norm, most: most / norm), value="without 1e-6")


@mistake("Clip by the norm of all gradients together: instep.clip_grad_norm(grads, max_norm).")
def clip_each_leaf(evidence: Evidence):
    """Each leaf is clipped by its own norm."""
    if evidence.loop.clip_grad_norm is None:
        return
    shown, most = evidence.gradients("clipped gradient"), _max_norm(evidence)
    largest = max((float(g.norm()) for g in (shown or {}).values()), default=most)
    for limit in dict.fromkeys((most, float(f"{largest:.3g}"))):
        for epsilon in (1e-6, 0.0):

            def clip(evidence: Evidence, now: Clip, limit=limit, epsilon=epsilon) -> Clip:
                return now._replace(
                    clipped={
                        name: g * (limit / (g.norm() + epsilon)).clamp(max=1.0)
                        for name, g in now.given.items()
                    }
                )

            said = [f"max_norm={limit:g}"] if limit != most else []
            said += [] if epsilon else ["without 1e-6"]
            yield Variant({"clip": clip}, value=", ".join(said), told=limit != most)


@mistake("Clip: clip_grad_norm= or clip_grad_value= of the step.")
def clip_missing(evidence: Evidence):
    """Gradients are not clipped."""
    if evidence.loop.clip_grad_norm is None and evidence.loop.clip_grad_value is None:
        return
    yield Variant({"clip": lambda evidence, now: now._replace(clipped=now.given)})


@mistake("PyTorch clips the norm here; instep.clip_grad_norm does.")
def clip_by_value(evidence: Evidence):
    """Each number is clipped, not the norm."""
    if evidence.loop.clip_grad_norm is None:
        return

    shown, most = evidence.gradients("clipped gradient"), _max_norm(evidence)
    largest = max((float(g.abs().max()) for g in (shown or {}).values()), default=most)
    for value in dict.fromkeys((most, float(f"{largest:.3g}"))):

        def clip(evidence: Evidence, now: Clip, v=value) -> Clip:
            return now._replace(clipped={k: g.clamp(-v, v) for k, g in now.given.items()})

        told = value != most
        if told and value >= _largest_given(evidence):
            continue  # it clips nothing
        yield Variant({"clip": clip}, value=f"{value:g}" if told else "", told=told)


def _largest_given(evidence: Evidence) -> float:
    grads = evidence.gradients() or {}
    return max((float(g.abs().max()) for g in grads.values()), default=float("inf"))


@mistake("Give the max_norm that PyTorch has.")
def clip_to_another_norm(evidence: Evidence):
    """Clipped to another max_norm, which the clipped gradients tell."""
    if evidence.loop.clip_grad_norm is None:
        return
    shown = evidence.gradients("clipped gradient")
    most = float(norm_of(shown)) if shown is not None else 0.0
    if most > 0.0:
        for value in dict.fromkeys((float(f"{most:.3g}"), most)):
            if value == _max_norm(evidence):
                continue  # it is PyTorch's
            for epsilon in (1e-6, 0.0):
                yield Variant(
                    _by(
                        lambda norm, _, value=value, e=epsilon: (value / (norm + e)).clamp(
                            max=1.0
                        )
                    ),
                    value=f"max_norm={value:.6g}" + ("" if epsilon else ", without 1e-6"),
                    told=True,
                )


@mistake("Clip once, after the mean over the microbatches.")
def clip_each_microbatch(evidence: Evidence):
    """The gradients of each microbatch are clipped before they are added."""
    if evidence.loop.clip_grad_norm is None or len(evidence.window) < 2:
        return
    for summed in (False, True):
        for epsilon in (1e-6, 0.0):

            def gradient(evidence: Evidence, now: Sum, summed=summed, epsilon=epsilon) -> Sum:
                most, k = _max_norm(evidence), len(now.passes)
                factors = [
                    (most / (norm_of(p.grads) + epsilon)).clamp(max=1.0) / (1 if summed else k)
                    for p in now.passes
                ]
                total = {
                    name: sum(
                        f * p.grads[name] for f, p in zip(factors, now.passes, strict=True)
                    )
                    for name in now.total
                }
                return now._replace(total=total)

            yield Variant(
                {"gradient": gradient, "clip": lambda e, now: now._replace(clipped=now.given)},
                value="and summed" if summed else "",
            )
            yield Variant({"gradient": gradient}, value="and again at the end")

"""Mistakes with a gradient scaler: where the scale is undone, and what a skipped step holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .._evidence import Evidence
from .._mistake import Variant, mistake
from .._replay import norm_of, updated
from .._step import Clip, Scale, Sum


def _scale(evidence: Evidence) -> float | None:
    """What the loss of this step was multiplied by; None without a scaler, or if it is 1."""
    scaler = evidence.loop.scaler
    scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
    return None if scale == 1.0 else scale


def _times(power: int) -> dict[str, Callable]:
    """Gradients times this power of the scale, which is another at other steps."""

    def scaled(evidence: Evidence, now: Sum) -> Sum:
        by = (_scale(evidence) or 1.0) ** power
        return now._replace(total={name: by * g for name, g in now.total.items()})

    return {"gradient": scaled}


@mistake("Unscale before the clip and the step: grads, found_inf = scaler.unscale(acc.grads).")
def never_unscaled(evidence: Evidence):
    """Gradients are still multiplied by the scale of the loss."""
    if scale := _scale(evidence):
        yield Variant(_times(1), value=f"{scale:g} times")


@mistake("Unscale once: grads, found_inf = scaler.unscale(acc.grads).")
def unscaled_twice(evidence: Evidence):
    """Gradients are divided by the scale of the loss twice."""
    if scale := _scale(evidence):
        yield Variant(_times(-1), value=f"{1 / scale:g} times")


@mistake("Report the loss, not what is differentiated: backward(..., scale=) keeps them apart.")
def scaled_loss_reported(evidence: Evidence):
    """The loss that is shown is multiplied by the scale."""
    if not _scale(evidence):
        return

    def report(evidence: Evidence, now: Sum) -> Sum:
        return now._replace(total=(_scale(evidence) or 1.0) * now.total)

    yield Variant({"report": report})


@mistake("Unscale before the clip: grads, found_inf = scaler.unscale(acc.grads) comes first.")
def clipped_before_unscaled(evidence: Evidence):
    """Gradients are clipped while they are still multiplied by the scale of the loss."""
    most = evidence.loop.clip_grad_norm
    if _scale(evidence) is None or most is None:
        return
    for shown in (True, False):  # the norm, before it is unscaled

        def clip(evidence: Evidence, now: Clip, shown=shown) -> Clip:
            scale = _scale(evidence) or 1.0
            factor = (most / (scale * norm_of(now.given) + 1e-6)).clamp(max=1.0)
            clipped = {name: factor * g for name, g in now.given.items()}
            norm = scale * now.norm if shown and now.norm is not None else now.norm
            return now._replace(clipped=clipped, norm=norm)

        yield Variant({"clip": clip})


@mistake("Skip the step where a gradient is not finite: instep.step(..., found_inf=found_inf).")
def step_not_skipped(evidence: Evidence):
    """The optimizer steps although a gradient is not finite."""
    if evidence.skips:
        yield Variant({"skip": lambda evidence, skips: False})


@mistake("The scheduler steps also where the scaler skips the optimizer, as in PyTorch's loop.")
def schedule_held_where_skipped(evidence: Evidence):
    """The schedule stays where the scaler skips a step."""
    if not evidence.skipped:
        return

    def rate(evidence: Evidence, rates: list[list[float]]) -> list[list[float]]:
        taken = [n - len({s for s in evidence.skipped if s <= n}) for n in range(len(rates))]
        return [rates[n] for n in taken]

    yield Variant({"rate": rate})


@mistake("Keep what scaler.update(found_inf) returns: the scale of the next step.")
def scale_never_updated(evidence: Evidence):
    """The scale stays as it is."""
    yield from _updated(evidence, lambda before, now: before._replace(found_inf=now.found_inf))


@mistake("PyTorch's scale has no floor; jmp's stops at 1.")
def scale_with_a_floor(evidence: Evidence):
    """The scale does not fall below 1."""
    yield from _updated(evidence, lambda before, now: now._replace(scale=max(now.scale, 1.0)))


@mistake("Grow at every growth_interval-th finite step in a row; Flax's grows one step later.")
def scale_grows_at_another_step(evidence: Evidence):
    """The scale grows at another step than PyTorch's."""
    scaler = evidence.loop.scaler
    if scaler is None or not scaler.is_enabled():
        return
    own = scaler.get_growth_interval()
    for interval in dict.fromkeys((own + 1, own - 1, 2000, 1000, 200, 100, 10)):
        if interval not in (own, 0):

            def change(evidence: Evidence, both: tuple[Scale, Scale], n=interval) -> Scale:
                return updated(evidence, both[0], n)

            yield Variant({"scale": change}, value=f"growth_interval={interval}")


def _updated(
    evidence: Evidence, change: Callable[[Scale, Scale], Scale], value: str = ""
) -> Iterator[Variant]:
    scaler = evidence.loop.scaler
    if scaler is not None and scaler.is_enabled():
        yield Variant({"scale": lambda evidence, both: change(*both)}, value=value)

"""Mistakes between ``zero_grad`` and the gradients that the optimizer is given."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ....bridge._tensors import tensors_in
from ..._leaf import Leaf
from .._evidence import Evidence
from .._mistake import Dial, Variant, mistake
from .._step import Gradients, Sum


@mistake("Begin every step with instep.zero_grad(params), or sum inside the step.")
def gradients_kept(evidence: Evidence):
    """The gradients of the steps before were not set to zero: they are in these."""
    if evidence.last is None:
        return

    def added(now: Sum, last: Gradients, n: int) -> Gradients:
        return {k: g + last[k] for k, g in now.total.items()}

    def weighed(now: Sum, last: Gradients, n: int) -> Gradients:
        return {k: ((n - 1) * last[k] + g) / n for k, g in now.total.items()}

    yield Variant({"gradient": _with_last(added)})
    yield Variant({"gradient": _with_last(weighed)}, value="mean over all microbatches so far")


@mistake("Compute the gradients before the optimizer steps: acc first, instep.step after it.")
def gradients_of_last_step(evidence: Evidence):
    """The optimizer was given the gradients of the step before, at the first none."""

    def stale(evidence: Evidence, now: Sum) -> Sum:
        if evidence.last is None:
            return now._replace(total={k: torch.zeros_like(g) for k, g in now.total.items()})
        right = evidence.last.right
        return now._replace(
            total={k: torch.tensor(right[Leaf("gradient", k)]) for k in now.total}
        )

    yield Variant({"gradient": stale})


def _with_last(combine: Callable) -> Callable:
    def change(evidence: Evidence, now: Sum) -> Sum:
        last = evidence.last.gradients() if evidence.last is not None else None
        last = last or {k: torch.zeros_like(g) for k, g in now.total.items()}
        return now._replace(total=combine(now, last, evidence.n))

    return change


@mistake("Divide by the number of microbatches: instep.mean(acc), as `loss / k` in PyTorch.")
def sum_for_mean(evidence: Evidence):
    """Gradients are summed over the microbatches, where PyTorch takes their mean."""
    yield from _scaled(evidence, lambda k: k)


@mistake("Divide by the number of microbatches once: in the loss or after it, not both.")
def divided_twice(evidence: Evidence):
    """Gradients are divided by the number of microbatches twice."""
    yield from _scaled(evidence, lambda k: 1 / k)


def _scaled(evidence: Evidence, factor: Callable[[int], float]):
    if len(evidence.window) == 1:
        return

    def scaled(evidence: Evidence, now: Sum) -> Sum:
        total, by = now.total, factor(len(now.passes))
        if isinstance(total, dict):
            return now._replace(total={name: g * by for name, g in total.items()})
        return now._replace(total=total * by)

    yield Variant({"gradient": scaled})
    yield Variant({"gradient": scaled, "report": scaled}, value="the loss too")
    yield Variant({"report": scaled}, value="the loss alone")


@mistake(
    "Let the loss return instep.Loss(total, weight) with the sum and the count, so that every "
    "element counts the same; or, where PyTorch takes a mean of means, return the mean."
)
def microbatches_weighed_otherwise(evidence: Evidence):
    """Microbatches count by their number of labels, where in PyTorch they do not, or do."""
    said: list[list[float]] = []
    for place in range(len(tensors_in(evidence.window[0]))):
        for kept in (lambda x: x != 0, lambda x: x >= 0, lambda x: x != -100):
            counts = _counted(evidence, place, kept)
            if counts not in said and len(set(counts)) > 1 and all(counts):
                said.append(counts)
                yield from _weighed(place, kept, by_count, "each by its number of labels")
                yield from _weighed(place, kept, mean_of_means, "a mean of means")


def by_count(counts: list[float]) -> list[float]:
    return [n / sum(counts) for n in counts]


def mean_of_means(counts: list[float]) -> list[float]:
    """Of what PyTorch divides by the mean number of labels."""
    return [sum(counts) / n / len(counts) ** 2 for n in counts]


def _weighed(
    place: int, kept: Callable, shares: Callable[[list[float]], list[float]], said: str
):
    def share(evidence: Evidence, now: list[float]) -> list[float]:
        return shares(_counted(evidence, place, kept))

    def report(evidence: Evidence, now: Sum) -> Sum:
        parts = zip(share(evidence, now.shares), now.passes, strict=True)
        return now._replace(total=sum(s * p.loss for s, p in parts))

    yield Variant({"share": share, "report": report}, value=said)
    yield Variant({"share": share}, value=said)


def _counted(evidence: Evidence, place: int, kept: Callable) -> list[float]:
    """How much of a tensor of each microbatch is no padding; nothing of what is no label."""
    tensors = [tensors_in(microbatch)[place] for microbatch in evidence.window]
    return [] if tensors[0].is_floating_point() else [float(kept(x).sum()) for x in tensors]


@mistake(
    "Scan over all microbatches of the window: the leading axis of the batch is their number."
)
def microbatch_dropped(evidence: Evidence):
    """One microbatch of the window never counted."""
    k = len(evidence.window)
    for i in reversed(range(k) if k > 1 else range(0)):
        yield Variant({"window": _without(i)}, value=f"number {i} of {k}, mean over the others")
        yield Variant(_only_zero(i), value=f"number {i} of {k}, mean over all")


@mistake("Accumulate: add every microbatch's gradients; the last one alone is not their mean.")
def last_microbatch_only(evidence: Evidence):
    """Gradients of the last microbatch alone, which overwrote those before it."""
    k = len(evidence.window)
    if k < 2:
        return

    def last(value: float) -> dict[str, Callable]:
        return {"share": lambda evidence, now: [0.0] * (len(now) - 1) + [value or now[-1]]}

    yield Variant(last(1.0))
    yield Variant(last(0.0), value="divided by the number of microbatches")


@mistake("Index the microbatch of the loop: the same one is taken every time.")
def microbatch_repeated(evidence: Evidence):
    """One microbatch was used for all of the window."""
    k = len(evidence.window)
    for i in range(k) if k > 1 else ():
        yield Variant(
            {"window": lambda evidence, window, i=i: [window[i]] * len(window)},
            value=f"number {i} of {k}",
        )


def _without(i: int) -> Callable:
    return lambda evidence, window: window[:i] + window[i + 1 :]


def _only_zero(i: int) -> dict[str, Callable]:
    def share(evidence: Evidence, now: list[float]) -> list[float]:
        return [*now[:i], 0.0, *now[i + 1 :]]

    def report(evidence: Evidence, now: Sum) -> Sum:
        k = len(now.passes)
        kept = [p.loss / k for j, p in enumerate(now.passes) if j != i]
        return now._replace(total=sum(kept))

    return {"share": share, "report": report}


def _leafwise(names: list[str], change: Callable) -> list[tuple[str, dict[str, Callable]]]:
    """A change of the gradient of all leaves, and of each alone."""

    def of(chosen: list[str]) -> dict[str, Callable]:
        def gradient(evidence: Evidence, now: Sum) -> Sum:
            total = {k: change(g) if k in chosen else g for k, g in now.total.items()}
            return now._replace(total=total)

        return {"gradient": gradient}

    return [("", of(names)), *((name, of([name])) for name in names)]


@mistake(
    "Take the mean over devices and examples once; no factor but PyTorch's is in the gradients."
)
def gradients_scaled(evidence: Evidence):
    """The loss is PyTorch's, and every gradient is its gradient times one factor."""
    yield Dial(_times, 1.0)


def _times(factor: float) -> Variant:
    def scaled(evidence: Evidence, now: Sum) -> Sum:
        return now._replace(total={name: factor * g for name, g in now.total.items()})

    return Variant({"gradient": scaled}, value=f"{factor:.6g} times")


@mistake("Minimise the loss: its jax.grad, without a minus.")
def gradient_negated(evidence: Evidence):
    """A gradient has the opposite sign."""
    for where, change in _leafwise(evidence.names, lambda g: -g):
        yield Variant(change, where)


@mistake(
    "Let the gradient through: no stop_gradient here, no leaf left out of params, and no "
    "zero_grad between backward and step."
)
def gradient_missing(evidence: Evidence):
    """A gradient is zero: a stop_gradient, or a leaf that is not differentiated."""
    for where, change in _leafwise(evidence.names, torch.zeros_like):
        yield Variant(change, where)
    groups = sorted({name.rpartition(".")[0] for name in evidence.names} - {""})
    prefixes = {".".join(g.split(".")[:i]) for g in groups for i in range(1, g.count(".") + 2)}
    for prefix in sorted(prefixes):
        chosen = [name for name in evidence.names if name.startswith(f"{prefix}.")]

        def gradient(evidence: Evidence, now: Sum, chosen=tuple(chosen)) -> Sum:
            total = {k: g * 0 if k in chosen else g for k, g in now.total.items()}
            return now._replace(total=total)

        yield Variant({"gradient": gradient}, prefix)

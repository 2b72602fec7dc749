"""Mistakes in the learning rate: what the step is given, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .._evidence import Evidence
from .._mistake import Dial, Variant, mistake


Rates = list[list[float]]


def _rate(change: Callable[[Rates], Rates], value: str = "") -> Variant:
    return Variant({"rate": lambda evidence, rates: change(rates)}, value=value)


def _varies(evidence: Evidence) -> bool:
    return any(rates != evidence.schedule[0] for rates in evidence.schedule)


@mistake("The first step uses schedule(0): count optimizer steps from 0.")
def schedule_ahead(evidence: Evidence):
    """The learning rate is the one of the next step: the schedule is one step ahead."""
    if _varies(evidence):
        yield _rate(lambda rates: [*rates[1:], rates[-1]])


@mistake("The second step uses schedule(1): scheduler.step() comes after optimizer.step().")
def schedule_behind(evidence: Evidence):
    """The learning rate is the one of the step before: the schedule is one step behind."""
    if _varies(evidence):
        yield _rate(lambda rates: [rates[0], *rates[:-1]])


@mistake("Give the schedule to the optimizer: lr=instep.schedules.cosine_annealing_lr(...).")
def schedule_constant(evidence: Evidence):
    """The learning rate stays at what it was at the start, or at its full value."""
    if _varies(evidence):
        first = evidence.schedule[0]
        yield _rate(lambda rates: [first] * len(rates), "as at the start")
        if base := _base(evidence):
            yield _rate(lambda rates: [base] * len(rates), f"lr={base[0]:g}")


@mistake("Count optimizer steps, not microbatches: the schedule moves once a step.")
def schedule_per_microbatch(evidence: Evidence):
    """The schedule moves with every microbatch, where PyTorch's moves once a step."""
    if not _varies(evidence):
        return
    k = evidence.loop.accumulate
    if k > 1:
        yield _rate(
            lambda rates: [rates[min(k * i, len(rates) - 1)] for i in range(len(rates))]
        )
        yield _rate(
            lambda rates: [
                rates[min(k * i + k - 1, len(rates) - 1)] for i in range(len(rates))
            ],
            "and one ahead",
        )


def _base(evidence: Evidence) -> list[float] | None:
    groups = evidence.loop.optimizer.param_groups
    base = [float(group.get("initial_lr", 0.0)) for group in groups]
    return base if all(base) else None


@mistake("Give the learning rate that PyTorch has.")
def another_base_rate(evidence: Evidence):
    """Every learning rate is PyTorch's times one factor."""
    for factor in _factors(evidence):
        yield replace(_times(factor), told=True)
    yield Dial(_times, 1.0)


def _times(factor: float) -> Variant:
    return _rate(
        lambda rates: [[factor * rate for rate in group] for group in rates],
        f"{factor:.6g} times",
    )


def _ramp(evidence: Evidence) -> Callable[[int], float] | None:
    """The line from the first two rates over JAX's up to 1; None: it does not rise to it."""
    shares = []
    for n in (0, 1):
        (shown, *_) = (*evidence.rates.get(n, {}).values(), None)
        (rate, *_) = evidence.schedule[n]
        shares.append(rate / float(shown) if shown else 1.0)
    first, second = shares
    if not 0.0 < first < second <= 1.0:
        return None
    return lambda n: min(first + n * (second - first), 1.0)


def _factors(evidence: Evidence) -> list[float]:
    shown = evidence.rates.get(evidence.n, {})
    ratios = {
        float(value) / rate
        for value, rate in zip(shown.values(), evidence.schedule[evidence.n], strict=False)
        if rate
    }
    if ratios:
        return [float(f"{r:.12g}") for r in ratios if r != 1.0]
    return [0.1, 10.0, 0.5, 2.0, 1.01, 0.99, 100.0, 0.01, 1 / 3, 3.0]


@mistake("Begin with the warm-up that PyTorch's scheduler has.")
def schedule_missing_warmup(evidence: Evidence):
    """The learning rate begins where the warm-up should end."""
    base, rates = _base(evidence), evidence.schedule
    if not base or not _varies(evidence):
        return
    rising = [i for i in range(1, len(rates)) if rates[i][0] > rates[i - 1][0]]
    if (ramp := _ramp(evidence)) is not None:
        flat = _rate(lambda rates: [[x / ramp(n) for x in r] for n, r in enumerate(rates)])
        yield replace(flat, told=True)
    if rising:
        yield _rate(lambda rates: [base] * len(rates), f"lr={base[0]:g}")
        peak = rising[-1]
        yield _rate(lambda rates: [*rates[peak:], *[rates[-1]] * peak], "shifted")


@mistake("Give the optimizer the schedule that PyTorch's scheduler has.", special=True)
def another_schedule(evidence: Evidence):
    """The learning rates are those of another schedule: not PyTorch's moved or multiplied."""
    shown = {
        n: [float(v) for leaf, v in seen.items() if leaf.kind == "lr"]
        for n, seen in evidence.rates.items()
    }
    if all(shown.values()) and len({tuple(rates) for rates in shown.values()}) > 1:
        pairs = [(shown[n][0], evidence.schedule[n][0]) for n in sorted(shown)[:3]]
        ours, theirs = (
            ", ".join(f"{x:.4g}" for x in side) for side in zip(*pairs, strict=True)
        )
        yield _rate(
            lambda rates: [shown.get(n, rate) for n, rate in enumerate(rates)],
            f"{ours}, ... where PyTorch has {theirs}, ...",
        )

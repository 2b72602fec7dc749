"""From what the walks measured to rows, the first divergence and the verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ._coverage import make_coverage, not_seen_through
from ._environment import environment
from ._judge import Ledger
from ._leaf import REQUIRED, REQUIRED_IN_ROUNDING, STAGE, Leaf, order
from ._records import (
    JUDGED,
    Curve,
    Divergence,
    Matched,
    Plan,
    Row,
    Status,
    Verdict,
    Walk,
)
from ._report import Report


SYNCED = Plan("float64", synced=True)


def make_report(
    ledgers: Sequence[Ledger],
    steps: int,
    weights: Sequence[Matched],
    curves: Sequence[Curve] = (),
    not_walked: Sequence[str] = (),
    raised: Sequence[str] = (),
    hidden: Sequence[str] = (),
    drawn: Sequence[str] = (),
) -> Report:
    """Sum up all walks.

    Args:
      ledgers: one for each walk that is judged, the free one in float64 first, if it is.
      steps: that were asked for.
      weights: which parameters and buffers are which.
      curves: losses of the free walks.
      not_walked: one sentence for each walk that could not be made to its end.
      raised: those of them in which a half raised.
      hidden: arrays of an opaque state that no view shows.
      drawn: one sentence for each walk that is drawn where others are judged.
    """
    names = {torch: ", ".join(m.jax) for m in weights for torch in m.torch}
    walks = [_sum_up(ledger, steps, names) for ledger in ledgers]
    verdict, reason = _overall(walks, steps, raised)
    return Report(
        verdict=verdict,
        reason=reason,
        steps=steps,
        walks=tuple(walks),
        coverage=make_coverage(ledgers[0], not_walked, hidden, drawn),
        curves=tuple(curves),
        weights=tuple(weights),
        environment=environment(),
    )


def _sum_up(ledger: Ledger, steps: int, names: Mapping[str, str]) -> Walk:
    rows = tuple(_row(ledger, leaf, names) for leaf in sorted(ledger.measurements, key=order))
    first = _first_divergence(ledger.plan, rows)
    verdict, reason = _verdict(ledger, rows, first, steps)
    return Walk(ledger.plan, verdict, reason, rows, first)


def _overall(walks: Sequence[Walk], steps: int, raised: Sequence[str]) -> tuple[Verdict, str]:
    """The worst verdict of all walks, with the reason of the first that has it.

    Where float64 shows that each step from where PyTorch stands is the same, a walk counts
    for the steps at which rounding leaves something to judge: a chaotic loop that runs freely
    leaves nothing, nor does in float32 a loss that has come down to 1e-8.
    """
    proved = any(walk.in_step for walk in walks if walk.plan == SYNCED)
    blurred = [_decided_by_rounding(walk) if proved else [] for walk in walks]
    for verdict in (Verdict.NOT_IN_STEP, Verdict.INCONCLUSIVE):
        for walk, at in zip(walks, blurred, strict=True):
            if walk.verdict is verdict and not at:
                where = "" if walk is walks[0] else f"{walk.plan.name}: "
                return verdict, where + walk.reason
    if raised:
        return Verdict.INCONCLUSIVE, f"nothing diverged, but {raised[0]}"
    notes = [
        f"; in {walk.plan.dtype} rounding decides {len(at)} of them"
        if walk.plan.rounding
        else f"; from step {at[0]} on rounding decides the free walk"
        for walk, at in zip(walks, blurred, strict=True)
        if at
    ]
    return Verdict.IN_STEP, f"no leaf diverged in {steps} steps" + "".join(notes)


def _decided_by_rounding(walk: Walk) -> list[int]:
    """The steps that rounding alone decides, if they are all that leave a walk inconclusive."""
    if walk.plan == SYNCED or walk.verdict is not Verdict.INCONCLUSIVE:
        return []
    found: dict[tuple[int, str], set[Status]] = {}
    for row in walk.rows:
        if row.leaf.kind in ("loss", "gradient") and row.status is not Status.IDLE:
            for m in row.measurements:
                found.setdefault((m.step, row.leaf.kind), set()).add(m.status)
    noise = {step for (step, _), statuses in found.items() if statuses == {Status.NOISE}}
    rest = [statuses for (step, _), statuses in found.items() if step not in noise]
    judged = all(statuses & {Status.IN_STEP} for statuses in rest)
    return sorted(noise) if judged and 1 not in noise else []


def _row(ledger: Ledger, leaf: Leaf, names: Mapping[str, str]) -> Row:
    measured = ledger.measurements[leaf]
    judged = [m for m in measured if m.judged]
    diverged = [m for m in judged if m.status is Status.DIVERGED]
    after_start = [m for m in measured if m.step > 0] or measured
    if diverged:
        status = Status.DIVERGED
    elif ledger.idle(leaf):
        status = Status.IDLE
    elif all(m.judged for m in after_start):
        status = Status.IN_STEP
    elif any(m.judged for m in after_start):
        status = Status.PARTLY
    else:
        status = measured[-1].status
    return Row(
        leaf=leaf,
        jax=_jax_name(leaf, names),
        status=status,
        judged=len(judged),
        measured=len(measured),
        last_judged=judged[-1].step if judged else 0,
        worst=max(judged or measured, key=lambda m: m.ratio),
        first_diverged=diverged[0] if diverged else None,
        measurements=tuple(measured),
    )


def _jax_name(leaf: Leaf, names: Mapping[str, str]) -> str | None:
    """The JAX name of a leaf; an optimizer slot has that of its parameter."""
    if leaf.kind == "scaler":
        return None
    name = leaf.name.rpartition(".")[0] if leaf.kind == "state" else leaf.name
    return names.get(name)


def _first_divergence(plan: Plan, rows: tuple[Row, ...]) -> Divergence | None:
    """The earliest step; in it the earliest stage; in that the worst leaf."""
    diverged = [(m.step, row, m) for row in rows if (m := row.first_diverged) is not None]
    if not diverged:
        return None
    step = min(n for n, _, _ in diverged)
    here = [(row, m) for n, row, m in diverged if n == step]
    stage = here[0][0].stage  # rows are in the order in which a step makes its leaves
    row, m = max(((r, m) for r, m in here if r.stage == stage), key=lambda pair: pair[1].ratio)
    return Divergence(plan.name, step, stage, row.leaf, row.jax, m, others=len(here) - 1)


def _verdict(
    ledger: Ledger, rows: tuple[Row, ...], first: Divergence | None, steps: int
) -> tuple[Verdict, str]:
    if first:
        what = f"the {first.stage} stage is the first to diverge, at step {first.step}"
        leaf = "" if first.stage == "loss" else f": {first.leaf.kind} of {first.leaf.name}"
        return Verdict.NOT_IN_STEP, what + leaf

    required: set[str] = set(REQUIRED)
    if ledger.plan.rounding:
        required = set(REQUIRED_IN_ROUNDING)
    elif any(leaf.kind == "buffer" and not ledger.idle(leaf) for leaf in ledger.measurements):
        required.add("buffer")
    for kind in (kind for kind in STAGE if kind in required):
        green = [r for r in rows if r.leaf.kind == kind and r.status in JUDGED]
        judged = {m.step for row in green for m in row.measurements if m.judged} - {0}
        if not judged:
            return Verdict.INCONCLUSIVE, f"nothing diverged, but no {kind} could be judged"
        judged |= ledger.skipped  # not finite, on both sides: so the step was skipped
        if max(judged) < steps:
            last = max(judged)
            return Verdict.INCONCLUSIVE, (
                f"in step to step {last}; from step {last + 1} on no {kind} could be judged"
            )
        gap = min(set(range(1, steps + 1)) - judged, default=None)
        if gap and kind != "update":  # there is none where a warm-up begins with a rate of zero
            return Verdict.INCONCLUSIVE, f"no {kind} could be judged at step {gap}"

    hidden = not_seen_through(ledger)
    if hidden:
        leaf = min(hidden, key=order)
        return Verdict.INCONCLUSIVE, (
            f"nothing diverged, but one side does not show the {leaf.kind} of {leaf.name}"
        )
    return Verdict.IN_STEP, f"no leaf diverged in {steps} steps"

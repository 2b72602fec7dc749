"""The verdict of a walk, and the numbers behind it. Data only; ``_table`` draws it."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ._judge import Ledger, Measurement, Status
from ._leaf import REQUIRED, SEEN_THROUGH, STAGE, Leaf, order
from ._tolerance import DRAWS, FLOOR_FACTOR, NOISE, RELATIVE


SCHEMA = 1


class Verdict(StrEnum):
    IN_STEP = "in step"
    NOT_IN_STEP = "not in step"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Row:
    """One leaf over the whole walk. Errors and floors are relative to the leaf's maximum."""

    leaf: Leaf
    jax: str | None  # name of the leaf's parameter or buffer on the JAX side
    status: Status
    judged: int  # measurements that were judged
    measured: int  # measurements: one a step, and one before the first of what stands there
    worst: Measurement  # where error over bound was largest, among the judged if there are any
    first_diverged: Measurement | None

    @property
    def stage(self) -> str:
        return STAGE[self.leaf.kind]


@dataclass(frozen=True)
class Divergence:
    """The first place where the halves part: everything before it agreed."""

    step: int  # 0: before the first step
    stage: str
    leaf: Leaf
    jax: str | None
    measurement: Measurement
    others: int  # further leaves that diverged at this step


@dataclass(frozen=True)
class Report:
    """What ``parity.run`` found."""

    verdict: Verdict
    reason: str  # one sentence
    steps: int
    rows: tuple[Row, ...]
    first_divergence: Divergence | None
    unseen: tuple[str, ...]  # what one side did not show, one sentence each
    environment: dict[str, str]

    @property
    def in_step(self) -> bool:
        return self.verdict is Verdict.IN_STEP

    def not_judged(self) -> list[Row]:
        """Leaves about which nothing is claimed: noise, idle, not finite."""
        return [r for r in self.rows if r.status not in (Status.IN_STEP, Status.DIVERGED)]

    def to_json(self, path: str | Path) -> None:
        """Write everything but the arrays themselves; the layout is ``SCHEMA``."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def to_dict(self) -> dict:
        first = self.first_divergence
        return {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "in_step": self.in_step,
            "reason": self.reason,
            "steps": self.steps,
            "first_divergence": first
            and {
                "step": first.step,
                "stage": first.stage,
                **first.leaf._asdict(),
                "jax": first.jax,
                **_numbers(first.measurement),
                "others": first.others,
            },
            "leaves": [
                {
                    "stage": row.stage,
                    **row.leaf._asdict(),
                    "jax": row.jax,
                    "status": row.status,
                    "judged": row.judged,
                    "measured": row.measured,
                    "worst": _numbers(row.worst),
                    "first_diverged": row.first_diverged and row.first_diverged.step,
                }
                for row in self.rows
            ],
            "unseen": list(self.unseen),
            "tolerance": {
                "relative": RELATIVE,
                "floor_factor": FLOOR_FACTOR,
                "noise": NOISE,
                "draws": DRAWS,
            },
            "environment": self.environment,
        }

    def __str__(self) -> str:
        from ._table import plain

        return plain(self)


def make_report(ledger: Ledger, steps: int, names: dict[str, str]) -> Report:
    """Sum up a walk; ``names`` maps PyTorch's leaf names to the JAX side's."""
    rows = tuple(_row(ledger, leaf, names) for leaf in sorted(ledger.measurements, key=order))
    first = _first_divergence(rows)
    unseen = tuple(_unseen(ledger))
    verdict, reason = _verdict(ledger, rows, first, steps)
    return Report(verdict, reason, steps, rows, first, unseen, environment())


def environment() -> dict[str, str]:
    """Versions and machine, for the record."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in ("instep", "jax", "jaxlib", "torch", "optax", "flax", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _row(ledger: Ledger, leaf: Leaf, names: dict[str, str]) -> Row:
    measured = ledger.measurements[leaf]
    judged = [m for m in measured if m.status in (Status.IN_STEP, Status.DIVERGED)]
    diverged = [m for m in measured if m.status is Status.DIVERGED]
    if diverged:
        status = Status.DIVERGED
    elif ledger.idle(leaf):
        status = Status.IDLE
    elif any(m.step > 0 for m in judged):
        status = Status.IN_STEP
    else:
        status = measured[-1].status
    return Row(
        leaf=leaf,
        jax=_jax_name(leaf, names),
        status=status,
        judged=len(judged),
        measured=len(measured),
        worst=max(judged or measured, key=lambda m: m.ratio),
        first_diverged=diverged[0] if diverged else None,
    )


def _jax_name(leaf: Leaf, names: dict[str, str]) -> str | None:
    """The JAX name of a leaf; an optimizer slot has that of its parameter."""
    name = leaf.name.rpartition(".")[0] if leaf.kind == "state" else leaf.name
    return names.get(name)


def _first_divergence(rows: tuple[Row, ...]) -> Divergence | None:
    """The earliest step; in it the earliest stage; in that the worst leaf."""
    diverged = [(m.step, row, m) for row in rows if (m := row.first_diverged) is not None]
    if not diverged:
        return None
    step = min(n for n, _, _ in diverged)
    here = [(row, m) for n, row, m in diverged if n == step]
    stage = here[0][0].stage  # rows are in the order in which a step makes its leaves
    row, m = max(((r, m) for r, m in here if r.stage == stage), key=lambda pair: pair[1].ratio)
    return Divergence(step, stage, row.leaf, row.jax, m, others=len(here) - 1)


def _verdict(ledger, rows, first, steps) -> tuple[Verdict, str]:
    if first:
        return Verdict.NOT_IN_STEP, (
            f"the {first.stage} stage is the first to diverge, at step {first.step}: "
            f"{first.leaf.kind} of {first.leaf.name}"
            if first.leaf.kind != "loss"
            else f"the loss is the first to diverge, at step {first.step}"
        )
    required = {*REQUIRED} | {"buffer" for row in rows if row.leaf.kind == "buffer"}
    required |= {leaf.kind for side in ledger.unseen.values() for leaf in side}
    required -= SEEN_THROUGH.keys()
    judged = {row.leaf.kind for row in rows if row.status is Status.IN_STEP}
    missing = [kind for kind in STAGE if kind in required - judged]
    if missing:
        return Verdict.INCONCLUSIVE, (
            f"nothing diverged, but no {' or '.join(missing)} could be judged"
        )
    hidden = {leaf for side in ledger.unseen.values() for leaf in side}
    hidden = sorted(leaf for leaf in hidden if leaf.kind not in SEEN_THROUGH)
    if hidden:
        return Verdict.INCONCLUSIVE, (
            f"nothing diverged, but one side does not show the {hidden[0].kind} of "
            f"{hidden[0].name}"
        )
    return Verdict.IN_STEP, f"no leaf diverged in {steps} steps"


def _unseen(ledger: Ledger) -> list[str]:
    sentences = []
    for side, other in (("jax", "PyTorch"), ("torch", "JAX")):
        here = {"jax": "JAX", "torch": "PyTorch"}[side]
        for kind in STAGE:
            leaves = sorted(leaf.name for leaf in ledger.unseen[side] if leaf.kind == kind)
            if leaves:
                judged = (
                    f"; judged through the {via}" if (via := SEEN_THROUGH.get(kind)) else ""
                )
                more = f" and {len(leaves) - 1} more" if len(leaves) > 1 else ""
                sentences.append(
                    f"{kind}: the {here} side does not show {leaves[0]}{more}, which the "
                    f"{other} side has{judged}"
                )
    return sentences


def _numbers(m: Measurement) -> dict:
    """A measurement as JSON numbers; JSON has no infinity, so None stands for it."""
    numbers = asdict(m) | {"bound": m.bound, "ratio": m.ratio}
    return {
        k: None if isinstance(v, float) and v == float("inf") else v for k, v in numbers.items()
    }

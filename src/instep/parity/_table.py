"""A report in the terminal: every leaf, then what is not judged, then the verdict."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..bridge._weights import braced
from ._leaf import STAGE
from ._records import JUDGED, Matched, Row, Status, Verdict, Walk
from ._words import relative, told, worst_ratio


if TYPE_CHECKING:
    from ._report import Report


STYLE = {
    Status.IN_STEP: "green",
    Status.DIVERGED: "bold red",
    Status.PARTLY: "yellow",
    Status.NOISE: "yellow",
    Status.IDLE: "yellow",
    Status.NOT_FINITE: "yellow",
    Verdict.IN_STEP: "bold green",
    Verdict.NOT_IN_STEP: "bold red",
    Verdict.INCONCLUSIVE: "bold yellow",
}


def render(report: Report, title: str = "", leaves: bool = False) -> RenderableType:
    """The report as a rich renderable; ``leaves`` adds a row for every leaf."""
    parts: list[RenderableType] = []
    if leaves:
        parts += [_weights_table(report.weights), ""]
        parts += [_leaf_table(report.rows, f"{title}  every leaf".strip()), ""]
    parts += [_kind_table(report, title), ""]
    if synced := report.walks[1:]:
        parts += [_synced_table(synced), ""]
    if not_judged := report.not_judged():
        parts += [_leaf_table(not_judged, "Not judged, or not at every step"), ""]
    parts += [
        Text(f"  {label:<12}{sentence}", style="yellow")
        for label, sentences in (
            ("not judged", _not_judged_when_synced(report)),
            ("not seen", report.coverage.unseen),
            ("not walked", report.coverage.not_walked),
        )
        for sentence in sentences
    ]
    parts.append(_verdict(report, title))
    return Group(*parts)


def plain(report: Report) -> str:
    """The report as plain text, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100, color_system=None, force_jupyter=False)
    console.print(render(report))
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def _weights_table(weights: Sequence[Matched]) -> Table:
    table = _table("What is which")
    for name in ("PyTorch", "JAX", "rule"):
        table.add_column(name, overflow="fold")
    for matched in weights:
        names = [braced(side) or "\n".join(side) for side in (matched.torch, matched.jax)]
        table.add_row(names[0], names[1] or "PyTorch alone", matched.rule)
    return table


def _kind_table(report: Report, title: str) -> Table:
    """The free walk in float64, by kind of leaf."""
    walk = report.walks[0].plan.name  # the free one, if it is judged
    table = _table(f"{title}  {report.steps} steps in {walk}".strip())
    table.add_column("stage")
    table.add_column("compared")
    for name in ("judged", "worst error", "floor", "error/bound", "step"):
        table.add_column(name, justify="right")
    for kind, stage in STAGE.items():
        rows = [row for row in report.rows if row.leaf.kind == kind]
        if not rows:
            continue
        judged = [row for row in rows if row.status in JUDGED]
        share = f"{len(judged)}/{len(rows)}"
        if not judged:
            table.add_row(stage, kind, share, style=STYLE[Status.IDLE])
            continue
        diverged = any(row.status is Status.DIVERGED for row in rows)
        m = max((row.worst for row in judged), key=lambda m: m.ratio)
        table.add_row(
            stage,
            kind,
            share,
            relative(m.error, m),
            relative(m.floor, m),
            f"{m.ratio:.2g}",
            str(m.step),
            style=STYLE[Status.DIVERGED] if diverged else "",
        )
    return table


def _synced_table(walks: Sequence[Walk]) -> Table:
    """The worst error over its bound in each walk that is re-synchronised."""
    table = _table("Each step from where PyTorch stands: error/bound")
    table.add_column("stage")
    table.add_column("compared")
    for walk in walks:
        table.add_column(walk.plan.dtype, justify="right")
    shown = {row.leaf.kind for walk in walks for row in walk.rows}
    for kind, stage in STAGE.items():
        if kind in shown:
            table.add_row(stage, kind, *(_ratio(worst_ratio(walk, kind)) for walk in walks))
    return table


def _ratio(worst: float | None) -> Text:
    if worst is None:
        return Text("not judged", style=STYLE[Status.IDLE])
    return Text(f"{worst:.2g}", style=STYLE[Status.DIVERGED] if worst > 1 else "")


def _not_judged_when_synced(report: Report) -> list[str]:
    """What the synced walks do not judge although the free one does, by kind of leaf."""
    known = {row.leaf for row in report.not_judged()}
    sentences = []
    for walk in report.walks[1:]:
        rows = [row for row in walk.not_judged() if row.leaf not in known]
        for status in dict.fromkeys(row.status for row in rows):
            kinds = Counter(row.leaf.kind for row in rows if row.status is status)
            what = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
            sentences.append(f"{walk.plan.name}: {status}: {what}")
    return sentences


def _leaf_table(rows: Sequence[Row], title: str) -> Table:
    table = _table(title)
    table.add_column("leaf", overflow="fold")
    for name in ("worst error", "floor", "step", "judged"):
        table.add_column(name, justify="right")
    table.add_column("")
    kind = None
    for row in rows:
        if row.leaf.kind != kind:
            kind = row.leaf.kind
            table.add_row(Text(kind, style="bold"))
        m = row.worst
        table.add_row(
            f"  {row.leaf.name}",
            relative(m.error, m),
            relative(m.floor, m),
            str(m.step),
            f"{row.judged}/{row.measured}",
            Text(row.status, style=STYLE[row.status]),
        )
    return table


def _verdict(report: Report, title: str) -> Text:
    text = Text(f"{title}: " if title else "")
    text.append(report.verdict.upper(), style=STYLE[report.verdict])
    reason = report.reason
    if not reason.startswith(tuple(walk.plan.dtype for walk in report.walks)):
        reason = reason[0].upper() + reason[1:]
    text.append(f". {reason}.")
    judged = sum(r.status is Status.IN_STEP for r in report.rows)
    where = "" if report.in_step else " in float64"
    text.append(f" {judged} of {len(report.rows)} leaves judged in step{where}.")
    if not report.coverage.complete:
        text.append(" Limited coverage.", style=STYLE[Verdict.INCONCLUSIVE])
    for label, sentence in told(report):
        text.append(f"\n  {label:<10} {sentence}")
    return text


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )

"""A report in the terminal: every leaf, then what is not judged, then the verdict."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ._leaf import STAGE
from ._records import JUDGED, Measurement, Row, Status, Verdict


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
        parts += [_leaf_table(report.rows, f"{title}  every leaf".strip()), ""]
    parts += [_kind_table(report, title), ""]
    if not_judged := report.not_judged():
        parts += [
            _leaf_table(not_judged, "Not judged, or not at every step"),
            "",
        ]
    parts += [Text(f"  not seen   {sentence}", style="yellow") for sentence in report.unseen]
    parts.append(_verdict(report, title))
    return Group(*parts)


def plain(report: Report) -> str:
    """The report as plain text, 100 columns wide."""
    console = Console(file=io.StringIO(), width=100, color_system=None, force_jupyter=False)
    console.print(render(report))
    return console.file.getvalue().rstrip()  # type: ignore[attr-defined]


def relative(value: float, m: Measurement) -> str:
    """``value`` over the maximum of the leaf."""
    if value == 0.0:
        return "0"
    return f"{value / m.scale:.1e}" if m.scale else f"{value:.1e} abs"


def _kind_table(report: Report, title: str) -> Table:
    table = _table(f"{title}  {report.steps} steps in float64".strip())
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
    text.append(f". {report.reason[0].upper()}{report.reason[1:]}.")
    judged = sum(r.status is Status.IN_STEP for r in report.rows)
    text.append(f" {judged} of {len(report.rows)} leaves judged in step.")
    if first := report.first_divergence:
        m = first.measurement
        text.append(
            f"\n  where      step {first.step}, stage {first.stage}: {first.leaf.kind} of "
            f"{first.leaf.name}" + (f" (JAX: {first.jax})" if first.jax else "")
        )
        text.append(
            f"\n  how far    {relative(m.error, m)} of its maximum, {m.ratio:.2g} times the "
            f"bound (floor {relative(m.floor, m)})"
        )
        text.append(f"\n  also       {first.others} further leaves at this step")
    if report.hint:
        text.append(f"\n  hint       {report.hint}")
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

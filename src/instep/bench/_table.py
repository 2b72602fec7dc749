"""The report as a table for the terminal, and what is to be said against it."""

from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from ._report import BenchReport


WIDTH = 110


def render(report: BenchReport) -> Group:
    """Times, then rates and costs, and below them what the tables do not show."""
    notes = [Text(f"  {line}", overflow="fold") for line in lines(report)]
    return Group(Text(title(report), style="bold"), _times(report), "", _rates(report), *notes)


def plain(report: BenchReport) -> str:
    """The same without colours."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    console.print(render(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def title(report: BenchReport) -> str:
    """``digits-cnn  float32, 20 rounds of 40 steps on cpu``"""
    s = report.settings
    precision = s.precision if s.precision != "float32" else report.work["dtype"]
    return (
        f"{report.target}  {precision}, {_count(s.rounds, 'round')} of "
        f"{_count(report.steps, 'step')} on {report.contenders[0].device}"
    )


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def lines(report: BenchReport) -> Iterator[str]:
    """Where instep loses, what is not resolved or not shown, and what was chosen."""
    before, after = report.load
    if before > report.machine["usable_cores"]:
        yield f"BUSY          load average {before}: repeat it on an idle machine"
    for one in report.contenders:
        r = one.ratio
        if r is None:
            continue
        at = f"{r.median:.3g} ({r.low:.3g} to {r.high:.3g}) of {one.name}'s step time"
        if r.verdict == "above 1":
            yield f"loses         {at}"
        elif r.verdict == "not resolved":
            yield f"not resolved  {at}, at {r.confidence:.0%}"
    steps = report.settings.check_steps
    if not steps:
        yield "NOT CHECKED   whether the contenders do the same work (check_steps is 0)"
    else:
        leaves = min(one.judged for one in report.contenders)
        of = "first step" if steps == 1 else f"first {steps} steps"
        yield f"equal work    in the {of} in float64: {leaves} leaves or more of each"
    for sentence in (report.parity or {}).get("not_shown", ()):
        yield f"NOT SHOWN     {sentence}"
    if left_out := report.work["batches_left_out"]:
        yield f"left out      {left_out} of the batches, which have other shapes than most"
    for one in report.contenders:
        for what, text in one.notes.items():
            yield f"{one.name}: {what}: {text}"
    if report.work["flops"]:
        yield f"FLOPs of a step: {report.work['flops']:.4g}, by {report.work['flops_by']}"
    yield f"load average {before} before, {after} after; {report.machine['usable_cores']} cores"


def _times(report: BenchReport) -> Table:
    ratios = [one.ratio for one in report.contenders if one.ratio is not None]
    interval = f"{ratios[0].confidence:.0%} interval" if ratios else ""
    table = _table("contender", "ms a step", "10 to 90 %", "instep / it", interval)
    for one in report.contenders:
        r, ms = one.ratio, one.step
        table.add_row(
            one.name,
            f"{ms.median * 1e3:.4g}",
            f"{ms.p10 * 1e3:.4g} to {ms.p90 * 1e3:.4g}",
            "" if r is None else f"{r.median:.3f}",
            "" if r is None else f"{r.low:.3f} to {r.high:.3f}",
        )
    return table


def _rates(report: BenchReport) -> Table:
    flops = ["GFLOP/s"] if report.work["flops"] else []
    mfu = ["MFU"] if flops and report.peak_flops else []
    rates = [f"{report.work['unit']}/s", *flops, *mfu]
    table = _table("contender", *rates, "memory MB", "prepare s", "first step s")
    for one in report.contenders:
        rate, used = report.flops_per_second(one), report.mfu(one)
        table.add_row(
            one.name,
            f"{report.items_per_second(one):,.0f}",
            *([] if rate is None else [f"{rate / 1e9:.4g}"]),
            *([] if used is None else [f"{used:.1%}"]),
            f"{one.memory.used / 1e6:,.0f}",
            f"{one.prepare:.2f}",
            f"{one.first_step:.2f}",
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True, min_width=14)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table

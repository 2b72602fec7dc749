"""The report as one SVG of text and shapes: times on the left, ratios on the right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from ._report import BenchReport, Measured
from ._table import title


WIDTH, ROW, TOP, BOTTOM = 880, 34, 76, 46
NAMES, TIMES, RATIOS = 150, (160, 500), (570, 860)  # x: where names end, and both panels
TICKS = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0, 0.8, 1.25, 1.5, 0.67, 16.0, 0.06, 32.0)
APART = 28  # between two ticks; those that come first in TICKS are kept
INK, FAINT, GRID = "#1f2328", "#8b949e", "#e6e9ec"
BAR, OURS, MARK = "#b6c2cf", "#2f6f9f", "#c2571a"


def picture(report: BenchReport) -> str:
    """An ``<svg>`` document.

    Left: the median of a step and its 10 to 90 % band, from zero. Right: instep's step over
    each other, within the round, with its interval, on a logarithmic axis.
    """
    height = TOP + ROW * len(report.contenders) + BOTTOM
    body = [
        _text(16, 26, title(report), size=15, weight="600"),
        _text(16, 46, _caption(report), colour=FAINT),
        *_times(report, height),
        *_ratios(report, height),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" font-family="system-ui, sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _caption(report: BenchReport) -> str:
    versions = ", ".join(
        f"{name} {report.environment[name]}"
        for name in ("jax", "torch")
        if name in report.environment
    )
    cores = report.machine["usable_cores"]
    return f"{report.machine['processor']}, {cores} cores; {versions}; {report.date[:10]}"


def _times(report: BenchReport, height: int) -> Iterable[str]:
    left, right = TIMES
    most = max(one.step.p90 for one in report.contenders) * 1e3
    step = _round_step(most)

    def x(ms: float) -> float:
        return left + (right - left) * ms / (most * 1.12)

    for n in range(math.floor(most / step) + 1):
        yield _line(x(n * step), TOP - 6, x(n * step), height - BOTTOM, GRID)
        yield _text(x(n * step), height - BOTTOM + 16, f"{n * step:g}", "middle", FAINT)
    yield _text((left + right) / 2, height - 10, "ms a step", "middle", FAINT)
    for i, one in enumerate(report.contenders):
        y, b = TOP + ROW * i + ROW / 2, one.step
        yield _text(NAMES, y + 4, one.name, "end")
        yield (
            f'<rect x="{left}" y="{y - 9}" width="{x(b.median * 1e3) - left:.1f}" height="18" '
            f'fill="{OURS if one.ratio is None else BAR}"/>'
        )
        yield _line(x(b.p10 * 1e3), y, x(b.p90 * 1e3), y, INK, 1.5)
        yield _text(x(max(b.p90, b.median) * 1e3) + 6, y + 4, f"{b.median * 1e3:.3g}")


def _ratios(report: BenchReport, height: int) -> Iterable[str]:
    others = [one for one in report.contenders if one.ratio is not None]
    if not others:
        return
    left, right = RATIOS
    low, high = _reach(others)

    def x(ratio: float) -> float:
        return left + (right - left) * (math.log(ratio) - low) / (high - low)

    shown: list[float] = []
    for tick in TICKS:
        if low <= math.log(tick) <= high and all(abs(x(tick) - at) > APART for at in shown):
            shown.append(x(tick))
            colour = INK if tick == 1.0 else GRID
            yield _line(x(tick), TOP - 6, x(tick), height - BOTTOM, colour)
            yield _text(x(tick), height - BOTTOM + 16, f"{tick:.3g}", "middle", FAINT)
    yield _text(
        (left + right) / 2, height - 10, "instep's step over it: left of 1 is faster", "middle",
        FAINT,
    )  # fmt: skip
    for i, one in enumerate(report.contenders):
        if (r := one.ratio) is None:
            continue
        y = TOP + ROW * i + ROW / 2
        yield _line(x(r.low), y, x(r.high), y, MARK, 2)
        yield f'<circle cx="{x(r.median):.1f}" cy="{y}" r="4" fill="{MARK}"/>'
        yield _text(x(r.median), y - 8, f"{r.median:.2f}", "middle", size=11)


def _reach(others: list[Measured]) -> tuple[float, float]:
    """The logarithms at both ends: 1 and every interval are inside."""
    logs = [0.0]
    for one in others:
        assert one.ratio is not None
        logs += [math.log(one.ratio.low), math.log(one.ratio.high)]
    margin = max(0.08, 0.12 * (max(logs) - min(logs)))
    return min(logs) - margin, max(logs) + margin


def _round_step(most: float) -> float:
    """A distance of ticks that is 1, 2 or 5 times a power of ten, for about four of them."""
    power = 10.0 ** math.floor(math.log10(most / 4))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= most / 4)


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    colour: str = INK,
    size: int = 12,
    weight: str = "400",
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
        f'font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )

"""A report as HTML: a page with charts for the browser, and a fragment for notebooks."""

from __future__ import annotations

import json
import re
from html import escape
from importlib.resources import files
from math import isfinite
from typing import TYPE_CHECKING

from ._leaf import STAGE
from ._records import Curve, Verdict
from ._words import told, worst_ratio


if TYPE_CHECKING:
    from ._report import Report


# Legible on white as on black: notebooks come in both.
COLOUR = {
    Verdict.IN_STEP: "#2e8b61",
    Verdict.NOT_IN_STEP: "#d4572a",
    Verdict.INCONCLUSIVE: "#b07d1a",
}
POINTS = 400  # of a curve in a fragment, at most
WIDTH, HEIGHT = 480, 120  # of its chart


def page(report: Report, title: str = "") -> str:
    """One HTML file that needs no other: ``page.html`` with the report in it as JSON."""
    template = files("instep.parity").joinpath("page.html").read_text(encoding="utf-8")
    inserted = {
        "title": escape(title or "instep report"),
        "verdict": escape(report.verdict.upper()),
        "reason": escape(report.reason),
        "report": script_json(report.to_dict()),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: inserted[match[1]], template)


def script_json(value: object) -> str:
    """JSON that cannot end the <script> it stands in: ASCII only, and no "<" at all."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", r"\u003c")


def fragment(report: Report) -> str:
    """Static HTML without script or style sheet, in the colours of what is around it."""
    parts = [
        f"<strong style='font-size:1.3em'>{escape(report.verdict.upper())}</strong>",
        f"<div>{escape(report.reason)}</div>",
        *(f"<div>{escape(label)}: {escape(text)}</div>" for label, text in told(report)),
        _caution(report),
        _worst_table(report),
        *(_chart(curve) for curve in report.curves[:1]),
    ]
    edge = f"border-left:4px solid {COLOUR[report.verdict]};padding-left:1em"
    return f"<div style='{edge};line-height:1.5'>{''.join(parts)}</div>"


def _caution(report: Report) -> str:
    """What is not claimed, one line each."""
    notes = [f"not seen: {sentence}" for sentence in report.coverage.unseen]
    notes += [f"not walked: {sentence}" for sentence in report.coverage.not_walked]
    if rows := report.not_judged():
        notes.append(
            f"not judged, or not at every step: {len(rows)} of {len(report.rows)} leaves"
        )
    edge = f"border-left:4px solid {COLOUR[Verdict.INCONCLUSIVE]};padding-left:.75em"
    lines = "".join(f"<div>{escape(note)}</div>" for note in notes)
    return f"<div style='{edge};margin:.5em 0'>{lines}</div>" if notes else ""


def _worst_table(report: Report) -> str:
    """The worst error over its bound, kinds by walks."""
    cell = "text-align:right;padding:.1em 1em .1em 0"
    left = cell.replace("right", "left", 1)
    names = ["error/bound", *(walk.plan.name for walk in report.walks)]
    head = "".join(
        f"<th style='{left if i == 0 else cell}'>{escape(name)}</th>"
        for i, name in enumerate(names)
    )
    shown = {row.leaf.kind for walk in report.walks for row in walk.rows}
    rows = [
        [kind, *(_ratio(worst_ratio(walk, kind)) for walk in report.walks)]
        for kind in STAGE
        if kind in shown
    ]
    body = "".join(
        f"<tr><td style='{left}'>{kind}</td>"
        + "".join(f"<td style='{cell}'>{ratio}</td>" for ratio in ratios)
        + "</tr>"
        for kind, *ratios in rows
    )
    around = "border-collapse:collapse;margin:.5em 0;color:inherit;font-size:inherit"
    return (
        f"<div style='overflow-x:auto'><table style='{around}'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _ratio(worst: float | None) -> str:
    if worst is None:
        return "<em>not judged</em>"
    return f"<strong>✕&nbsp;{worst:.2g}</strong>" if worst > 1 else f"{worst:.2g}"


def _chart(curve: Curve) -> str:
    """Both losses: PyTorch as a wide pale line, JAX as a dashed one over it."""
    finite = [value for value in curve.torch + curve.jax if isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    label = f"loss, {len(curve.torch)} steps in {curve.dtype}, {low:.4g} to {high:.4g}"

    def points(losses: tuple[float, ...]) -> str:
        every = range(0, len(losses), max(1, len(losses) // POINTS))
        return " ".join(
            f"{4 + i / max(1, len(losses) - 1) * (WIDTH - 8):.1f},"
            f"{4 + (high - losses[i]) / ((high - low) or 1) * (HEIGHT - 8):.1f}"
            for i in every
            if isfinite(losses[i])
        )

    line = "<polyline fill='none' points='{}' {}/>"
    wide = "stroke='currentColor' stroke-opacity='.3' stroke-width='5'"
    dashed = "stroke='currentColor' stroke-width='1.5' stroke-dasharray='6 4'"
    return (
        f"<div>{label}: PyTorch wide, JAX dashed</div>"
        f"<svg role='img' aria-label='{label}' viewBox='0 0 {WIDTH} {HEIGHT}' "
        f"width='{WIDTH}' height='{HEIGHT}' style='max-width:100%'>"
        + line.format(points(curve.torch), wide)
        + line.format(points(curve.jax), dashed)
        + "</svg>"
    )

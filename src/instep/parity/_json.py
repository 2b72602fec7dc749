"""A report as JSON: the layout is ``report.schema.json``, and number ``SCHEMA``."""

from __future__ import annotations

from dataclasses import asdict
from math import isfinite
from typing import TYPE_CHECKING, Any

from ._records import Cause, Coverage, Curve, Divergence, Measurement, Row, Unexplained, Walk
from ._tolerance import (
    DRAWS,
    FLOOR_FACTOR,
    JUMP,
    LOOKS,
    NOISE,
    RELATIVE,
    ROUNDING_FACTOR,
    ROUNDING_ULPS,
)
from ._words import unexplained, why


if TYPE_CHECKING:
    from ._report import Report


SCHEMA = 4
DIGITS = 5  # of the numbers of a series


def to_dict(report: Report) -> dict[str, Any]:
    """What ``Report.to_json`` writes."""
    return {
        "schema": SCHEMA,
        "verdict": report.verdict,
        "in_step": report.in_step,
        "reason": report.reason,
        "hint": report.hint,
        "steps": report.steps,
        "first_divergence": report.first_divergence and _divergence(report.first_divergence),
        "causes": [_cause(cause) for cause in report.causes],
        "unexplained": [_unexplained(one) for one in report.unexplained],
        "checks": [asdict(check) for check in report.checks],
        "coverage": _coverage(report.coverage),
        "walks": [_walk(walk) for walk in report.walks],
        "curves": [_curve(curve) for curve in report.curves],
        "weights": [asdict(matched) for matched in report.weights],
        "tolerance": {
            "relative": RELATIVE,
            "floor_factor": FLOOR_FACTOR,
            "noise": NOISE,
            "draws": DRAWS,
            "rounding_factor": ROUNDING_FACTOR,
            "rounding_ulps": ROUNDING_ULPS,
            "looks": LOOKS,
            "jump": JUMP,
        },
        "environment": report.environment,
    }


def _coverage(coverage: Coverage) -> dict[str, Any]:
    return {
        "complete": coverage.complete,
        "unseen": list(coverage.unseen),
        "not_walked": list(coverage.not_walked),
    }


def _walk(walk: Walk) -> dict[str, Any]:
    return {
        "name": walk.plan.name,
        "dtype": walk.plan.dtype,
        "synced": walk.plan.synced,
        "verdict": walk.verdict,
        "reason": walk.reason,
        "leaves": [_leaf(row) for row in walk.rows],
    }


def _leaf(row: Row) -> dict[str, Any]:
    return {
        "stage": row.stage,
        **row.leaf._asdict(),
        "jax": row.jax,
        "status": row.status,
        "judged": row.judged,
        "measured": row.measured,
        "last_judged": row.last_judged,
        "first_diverged": row.first_diverged and row.first_diverged.step,
        "worst": _measurement(row.worst),
        "series": {
            "step": [m.step for m in row.measurements],
            "status": [m.status for m in row.measurements],
            **{
                name: [_short(getattr(m, name)) for m in row.measurements]
                for name in ("error", "floor", "scale", "bound", "ratio")
            },
        },
    }


def _divergence(first: Divergence) -> dict[str, Any]:
    return {
        "walk": first.walk,
        "step": first.step,
        "stage": first.stage,
        **first.leaf._asdict(),
        "jax": first.jax,
        **_measurement(first.measurement),
        "others": first.others,
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "part": cause.part,
        "explanations": [asdict(one) for one in cause.explanations],
        "leaves": [leaf._asdict() for leaf in cause.leaves],
        "steps": list(cause.steps),
        "before": _number(cause.before),
        "after": _number(cause.after),
        "place": asdict(cause.place) if cause.place else None,
        "told": [list(pair) for pair in why(cause)],
    }


def _unexplained(one: Unexplained) -> dict[str, Any]:
    return {
        "part": one.part,
        "step": one.step,
        "leaves": [leaf._asdict() for leaf in one.leaves],
        "place": asdict(one.place) if one.place else None,
        "told": [["unexplained", unexplained(one)]],
    }


def _measurement(m: Measurement) -> dict[str, Any]:
    numbers = asdict(m) | {"ratio": m.ratio}
    return {
        name: value if name == "status" else _number(value) for name, value in numbers.items()
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return {
        "dtype": curve.dtype,
        "torch": [_number(value) for value in curve.torch],
        "jax": [_number(value) for value in curve.jax],
    }


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity: None stands for them."""
    return value if isfinite(value) else None


def _short(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isfinite(value) else None

"""What a report says, in words: the same in the terminal, on the page and in a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._leaf import Leaf
from ._records import (
    JUDGED,
    Cause,
    Divergence,
    Explanation,
    Measurement,
    Unexplained,
    Walk,
)


if TYPE_CHECKING:
    from ._report import Report


def told(report: Report) -> list[tuple[str, str]]:
    """Where the halves part, how far, and where to look: (label, sentence)."""
    lines = []
    if first := report.first_divergence:
        m = first.measurement
        lines = [
            ("where", where(first)),
            (
                "how far",
                f"{relative(m.error, m)} of its maximum, {m.ratio:.2g} times the bound "
                f"(floor {relative(m.floor, m)})",
            ),
        ]
        if first.others:
            leaves = "leaf" if first.others == 1 else "leaves"
            lines.append(("also", f"{first.others} further {leaves} at this step"))
    for cause in report.causes:
        lines += why(cause)
    for one in report.unexplained:
        lines.append(("unexplained", unexplained(one)))
    lines += [("check", str(check)) for check in report.checks if not check.passed]
    return [*lines, ("hint", report.hint)] if report.hint else lines


def why(cause: Cause) -> list[tuple[str, str]]:
    """What happened, the proof, and what to do: (label, sentence)."""
    first, *others = cause.explanations
    steps = ", ".join(map(str, cause.steps))
    lines = [
        ("why", f"{first.mistake}{_at(first)}: {first.says}"),
        (
            "replayed",
            f"with this mistake PyTorch makes JAX's numbers at step {steps}: the error of "
            f"{_leaf(cause.leaves)} falls from {cause.before:.1e} to {cause.after:.1e}",
        ),
    ]
    same = dict.fromkeys(f"{x.mistake}{_at(x)}" for x in others)
    if same:
        lines.append(("or", f"{'; '.join(same)}: the same numbers here"))
    if cause.place:
        lines.append(("at", str(cause.place)))
    return [*lines, ("fix", first.fix)]


def unexplained(one: Unexplained) -> str:
    """``gradient of fc.weight at step 2: no known mistake gives these numbers``"""
    at = f". First missing: {one.place}" if one.place else ""
    return f"{_leaf(one.leaves)} at step {one.step}: no known mistake gives these numbers{at}"


def _at(one: Explanation) -> str:
    inside = ", ".join(x for x in (one.where, one.value) if x)
    return f" ({inside})" if inside else ""


def _leaf(leaves: tuple[Leaf, ...]) -> str:
    first, *others = leaves
    name = first.kind if first.kind == first.name else f"{first.kind} of {first.name}"
    return f"{name} and {len(others)} more" if others else name


def where(first: Divergence) -> str:
    """``step 3, stage optimizer: update of fc.weight (JAX: fc.kernel)``"""
    walk = "" if first.walk == "float64" else f"{first.walk}, "
    jax = f" (JAX: {first.jax})" if first.jax else ""
    kind, name = first.leaf
    leaf = kind if kind == name else f"{kind} of {name}"
    if kind == "scaler":
        leaf = f"{name} of the scaler"
    return f"{walk}step {first.step}, stage {first.stage}: {leaf}{jax}"


def relative(value: float, m: Measurement) -> str:
    """``value`` over the maximum of the leaf."""
    if value == 0.0:
        return "0"
    return f"{value / m.scale:.1e}" if m.scale else f"{value:.1e} abs"


def worst_ratio(walk: Walk, kind: str) -> float | None:
    """The largest error over its bound of the judged leaves of one kind; None: none is."""
    judged = (r.worst.ratio for r in walk.rows if r.leaf.kind == kind and r.status in JUDGED)
    return max(judged, default=None)

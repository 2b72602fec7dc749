"""The verdict of all walks, and the numbers behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from ._html import fragment, page
from ._json import to_dict
from ._records import (
    Cause,
    Check,
    Coverage,
    Curve,
    Divergence,
    Matched,
    Row,
    Unexplained,
    Verdict,
    Walk,
)
from ._table import plain


@dataclass(frozen=True)
class Report:
    """What ``parity.run`` found."""

    verdict: Verdict  # of all walks
    reason: str  # one sentence
    steps: int  # that were asked for
    walks: tuple[Walk, ...]  # the free one in float64 first
    coverage: Coverage  # what was not compared
    curves: tuple[Curve, ...]  # losses of the free walks
    weights: tuple[Matched, ...]  # what is matched with what
    environment: dict[str, str]  # versions and device
    hint: str | None = None  # where to look first, one sentence
    causes: tuple[Cause, ...] = ()  # why, confirmed by replay, in the order of the step
    unexplained: tuple[Unexplained, ...] = ()  # parts that diverge for another reason
    checks: tuple[Check, ...] = ()  # of what no step replays; the verdict does not depend on it

    @property
    def in_step(self) -> bool:
        """Whether every walk is."""
        return self.verdict is Verdict.IN_STEP

    @property
    def first_divergence(self) -> Divergence | None:
        """Of the first walk that has one."""
        return next((w.first_divergence for w in self.walks if w.first_divergence), None)

    @property
    def rows(self) -> tuple[Row, ...]:
        """Of the free walk in float64."""
        return self.walks[0].rows

    def not_judged(self) -> list[Row]:
        """Leaves of the free walk about which, at some step or at all, nothing is claimed."""
        return self.walks[0].not_judged()

    def with_hint(self, hint: str | None) -> Report:
        """The same with a sentence on what to try."""
        return replace(self, hint=hint)

    def to_dict(self) -> dict:
        """Everything but the arrays themselves, as ``report.schema.json`` describes it."""
        return to_dict(self)

    def to_json(self, path: str | Path) -> None:
        """Write ``to_dict``."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def to_html(self, path: str | Path, title: str = "") -> None:
        """Write a page that opens in any browser, from the file, without a network."""
        Path(path).write_text(page(self, title), encoding="utf-8")

    def _repr_html_(self) -> str:
        return fragment(self)

    def __str__(self) -> str:
        return plain(self)

"""The verdict of a walk, and the numbers behind it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from ._records import Divergence, Measurement, Row, Status, Verdict
from ._table import plain
from ._tolerance import DRAWS, FLOOR_FACTOR, NOISE, RELATIVE


SCHEMA = 1


@dataclass(frozen=True)
class Report:
    """What ``parity.run`` found."""

    verdict: Verdict
    reason: str  # one sentence
    steps: int
    rows: tuple[Row, ...]
    first_divergence: Divergence | None
    unseen: tuple[str, ...]  # what one side does not show, one sentence for each kind
    environment: dict[str, str]
    hint: str | None = None  # where to look first, one sentence

    @property
    def in_step(self) -> bool:
        return self.verdict is Verdict.IN_STEP

    def not_judged(self) -> list[Row]:
        """Leaves about which, at some step or at all, nothing is claimed."""
        return [r for r in self.rows if r.status not in (Status.IN_STEP, Status.DIVERGED)]

    def to_json(self, path: str | Path) -> None:
        """Write everything but the arrays themselves; the layout is number ``SCHEMA``."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def to_dict(self) -> dict:
        """What ``to_json`` writes."""
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
                    "last_judged": row.last_judged,
                    "worst": _numbers(row.worst),
                    "first_diverged": row.first_diverged and row.first_diverged.step,
                }
                for row in self.rows
            ],
            "unseen": list(self.unseen),
            "hint": self.hint,
            "tolerance": {
                "relative": RELATIVE,
                "floor_factor": FLOOR_FACTOR,
                "noise": NOISE,
                "draws": DRAWS,
            },
            "environment": self.environment,
        }

    def __str__(self) -> str:
        return plain(self)


def _numbers(m: Measurement) -> dict:
    """A measurement as JSON numbers; JSON has no infinity, so None stands for it."""
    numbers = asdict(m) | {"ratio": m.ratio}
    return {name: None if value == inf else value for name, value in numbers.items()}

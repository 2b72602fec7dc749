"""What the tolerances let through, and what they stop: clean runs, and runs with a mistake.

    python benchmarks/tolerance.py [--seeds 20] [--steps 20] [--json FILE]

Clean: digits-cnn and digits-mlp, and the LSTM and the encoder of ``parity_tests/sequences.py``,
from ``seeds`` different weights and orders of the data. A verdict other than IN STEP is a false
alarm. Teeth: every mistake of ``parity_tests/teeth.py``, and in which
walks it is above rounding. For each walk the largest error over its bound is kept, by kind of
leaf: 1 is the limit.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path


os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).parent.parent / "parity_tests"))

import provenance
import sequences
import teeth
from instep import parity, workloads
from instep.parity._records import JUDGED, Verdict


PRECISIONS = ("float32", "bfloat16")
TEETH_STEPS = 5


PAIRS = {name: workloads.get(name).make_pair for name in ("digits-cnn", "digits-mlp")} | {
    "lstm": sequences.lstm_pair,
    "attention": sequences.attention_pair,
}


def clean(name: str, seeds: int, steps: int) -> dict:
    """The worst of all seeds, by walk and kind of leaf, and the false alarms."""
    worst: dict[str, dict[str, dict]] = {}
    false_alarms = []
    for seed in range(seeds):
        report = parity.run(PAIRS[name](seed), steps, PRECISIONS)
        if not report.in_step or report.coverage.not_walked:
            false_alarms.append({"seed": seed, "reason": report.reason})
        for walk in report.walks:
            here = worst.setdefault(walk.plan.name, {})
            for kind, found in by_kind(walk).items():
                if found["ratio"] >= here.get(kind, {"ratio": -1.0})["ratio"]:
                    here[kind] = found | {"seed": seed}
        print(f"{name} seed {seed}: {report.verdict}", flush=True)
    return {"seeds": seeds, "steps": steps, "false_alarms": false_alarms, "worst": worst}


def bites(name: str) -> dict:
    """Which walks find one mistake, where first, and by how much."""
    report = parity.run(getattr(teeth, name)(), TEETH_STEPS, PRECISIONS)
    found = {}
    for walk in report.walks:
        first = walk.first_divergence
        ratios = [found["ratio"] for found in by_kind(walk).values()]
        found[walk.plan.name] = {
            "verdict": walk.verdict,
            "first": first and f"step {first.step}, {first.leaf.kind} of {first.leaf.name}",
            "ratio": max(ratios, default=None),
        }
    print(f"{name}: {', '.join(w for w, x in found.items() if x['first'])}", flush=True)
    return found


def by_kind(walk: parity.Walk) -> dict[str, dict]:
    """The judged leaf of each kind whose error is largest over its bound."""
    rows: Iterable[parity.Row] = (row for row in walk.rows if row.status in JUDGED)
    found: dict[str, dict] = {}
    for row in rows:
        ratio = min(float(f"{row.worst.ratio:.4g}"), sys.float_info.max)
        if ratio >= found.get(row.leaf.kind, {"ratio": -1.0})["ratio"]:
            found[row.leaf.kind] = {
                "ratio": ratio,
                "leaf": row.leaf.name,
                "step": row.worst.step,
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    before, found = provenance.about(), {"clean": {}, "teeth": {}}

    def keep() -> None:
        provenance.write(args.json, before, **found)

    for name in PAIRS:
        found["clean"][name] = clean(name, args.seeds, args.steps)
        keep()
    for name in teeth.TEETH:
        found["teeth"][name] = bites(name)
        keep()
    alarms = sum(len(runs["false_alarms"]) for runs in found["clean"].values())
    missed = [
        name
        for name, walks in found["teeth"].items()
        if walks["float64"]["verdict"] is not Verdict.NOT_IN_STEP
    ]
    print(f"{alarms} false alarms; {len(missed)} mistakes missed in float64 {missed or ''}")
    sys.exit(bool(alarms or missed))


if __name__ == "__main__":
    main()

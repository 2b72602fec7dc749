"""Which calls of PyTorch's own database our operators are in step with, as a file.

    python parity_tests/ops_results.py [--calls 30] [--json parity_tests/results/op_db.json]

Every entry with at most so many calls, evenly spaced. A call that is refused, or whose numbers
cannot be compared, does not count as in step. See ``ops_check.outcome`` for what that means.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jax

from conftest import strict_float64
from instep.bridge.lower._table import ATEN, RANDOM
from instep.parity._environment import environment
from ops_cases import cases, entries
from ops_check import Outcome, in_step, outcome


RESULTS = Path(__file__).parent / "results" / "op_db.json"
COUNTS = ("calls", "in_step", "refused", "not_compared", "diverged")
SHOWN = 160  # characters of a reason


def results(at_most: int, only: str = "") -> dict[str, Any]:
    """What ``main`` writes."""
    table: dict[str, Any] = {}
    operators: set[str] = set()
    for n, entry in enumerate(name for name in entries() if only in name):
        found = [outcome(case) for case in cases(entry, at_most)]
        table[entry] = row(found)
        operators |= {o for x in found if in_step(x) for o in x.operators}
        print(n, entry, json.dumps(table[entry]), flush=True)
        if n % 50 == 49:
            jax.clear_caches()
    return {
        "versions": {k: environment()[k] for k in ("torch", "jax")},
        "at_most": at_most,
        "totals": totals(table),
        "operators": sorted(operators),
        "not_called": sorted({*ATEN, *RANDOM} - operators),
        "entries": dict(sorted(table.items())),
    }


def row(found: list[Outcome]) -> dict[str, Any]:
    """Of one entry. The reasons are those of the calls that are not in step."""
    counted: dict[str, Any] = {"calls": len(found), "in_step": sum(map(in_step, found))}
    by_floor = sum(x.by_floor for x in found)
    if by_floor:
        counted["by_floor"] = by_floor
    for kind in ("refused", "not_compared", "diverged"):
        reasons = Counter(x[:SHOWN] for o in found if (x := getattr(o, kind)))
        if reasons:
            counted[kind] = dict(sorted(reasons.items()))
    return counted


def totals(table: dict[str, Any]) -> dict[str, int]:
    """Calls of each kind, and entries of which any or all calls are in step."""

    def count(entry: dict[str, Any], kind: str) -> int:
        found = entry.get(kind, 0)
        return sum(found.values()) if isinstance(found, dict) else found

    return {
        "entries": len(table),
        "entries_in_step": sum(x["in_step"] > 0 for x in table.values()),
        "entries_wholly_in_step": sum(0 < x["in_step"] == x["calls"] for x in table.values()),
    } | {kind: sum(count(x, kind) for x in table.values()) for kind in (*COUNTS, "by_floor")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=30)
    parser.add_argument("--only", default="", help="entries with this in their names; no file")
    parser.add_argument("--json", type=Path, default=RESULTS)
    args = parser.parse_args()
    with strict_float64(), warnings.catch_warnings():
        warnings.simplefilter("error")
        made = results(args.calls, args.only)
    print(json.dumps(made["totals"], indent=1))
    if not args.only:
        args.json.parent.mkdir(exist_ok=True)
        args.json.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()

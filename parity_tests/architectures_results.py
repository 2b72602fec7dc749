"""Walk every architecture and keep the verdicts in ``results/architectures.json``.

    python parity_tests/architectures_results.py --steps 20 --dropout 0.1 gpt2 bert ...

walks the ones named, without names all; what is walked replaces what is kept of it.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path

import jax
import torch

import instep
from architectures import ARCHITECTURES


RESULTS = Path(__file__).parent / "results" / "architectures.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--dropout", type=float, default=0.0)
    options = parser.parse_args()
    for name in options.names:
        row = walked(name, options.steps, options.dropout)
        print(name, row)
        keep(name, f"dropout {options.dropout:g}", row)


def walked(name: str, steps: int, dropout: float) -> dict:
    """The verdict of one, or why there is none."""
    start = time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = instep.parity.run(ARCHITECTURES[name](dropout), steps)
    except Exception as error:
        return {"verdict": "refused", "reason": f"{type(error).__name__}: {error}"[:300]}
    seconds = round(time.monotonic() - start, 1)
    return {
        "verdict": report.verdict,
        "reason": report.reason,
        "steps": steps,
        "seconds": seconds,
        "torch": torch.__version__.partition("+")[0],
        "jax": jax.__version__,
    }


def keep(name: str, setting: str, row: dict) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept.setdefault(name, {})[setting] = row
    ordered = {n: dict(sorted(kept[n].items())) for n in ARCHITECTURES if n in kept}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()

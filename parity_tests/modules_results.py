"""Judge the modules of PyTorch's database and keep the counts in ``results/module_db.json``.

python parity_tests/modules_results.py [--at-most 4] [nn.Conv2d ...]
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path


os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import torch

from instep.parity._floor import LOWER, OneUlp
from instep.parity._judge import measure, measure_rounding
from instep.parity._records import Status
from instep.parity._tolerance import DRAWS
from module_cases import Case, cases, names, of_ours, of_torch


RESULTS = Path(__file__).parent / "results" / "module_db.json"
FINE = (Status.IN_STEP, Status.NOISE, Status.NOT_FINITE, Status.IDLE)


def float64(case: Case) -> list[str]:
    """What is not PyTorch's: every leaf to 1e-12 of its maximum."""
    with jax.enable_x64(True):
        torch.set_default_dtype(torch.float64)
        try:
            ours, theirs = of_ours(case), of_torch(case)
        finally:
            torch.set_default_dtype(torch.float32)
    return _differences(ours, theirs, lambda x, y, leaf: measure(0, x, y, floor=0.0))


def float32(case: Case) -> list[str]:
    """What rounds worse than PyTorch, both measured from float64.

    PyTorch's own error is that of its step and, where that is not enough, of its steps with
    random rounding, as ``instep.parity`` has it.
    """
    oracle, low = of_torch(case), case.to(torch.float32)
    ours, own = of_ours(low), [of_torch(low)]

    def differences() -> list[str]:
        return _differences(
            ours,
            own[0],
            lambda x, y, leaf: measure_rounding(0, oracle[leaf], y, [run[leaf] for run in own]),
        )

    for seed in range(DRAWS):
        if not differences():
            break
        moved = low.to(torch.float32)
        with OneUlp(seed, LOWER):
            own.append(of_torch(moved))
    return differences()


def _differences(ours, theirs, judged) -> list[str]:
    if ours.keys() != theirs.keys():
        return [f"leaves {sorted(ours.keys() ^ theirs.keys())}"]
    wrong = []
    for leaf, x in theirs.items():
        y = ours[leaf]
        narrowed = (x.dtype, y.dtype) == ("int64", "int32")  # without x64
        if x.shape != y.shape or not (narrowed or x.dtype == y.dtype):
            wrong.append(f"{leaf}: {y.dtype}{y.shape}, not {x.dtype}{x.shape}")
            continue
        if x.dtype.kind != "f":
            if (x != y).any():
                wrong.append(f"{leaf}: other integers")
        elif (m := judged(x, y, leaf)).status not in FINE:
            wrong.append(f"{leaf}: {m.ratio:.2g} of the bound")
    return wrong


def judged(name: str, at_most: int | None) -> dict[str, dict]:
    """By mode and precision: how many calls, and what is wrong with which."""
    found = {}
    for mode in ("train", "eval"):
        for check in (float64, float32):
            calls, wrong = 0, {}
            for i, case in enumerate(cases(name, mode == "train", at_most)):
                calls += 1
                try:
                    differences = check(case.to(torch.float64))
                except Exception as error:
                    differences = [f"{type(error).__name__}: {error}"[:200]]
                if differences:
                    wrong[f"call {i}"] = differences[:3]
            found[f"{mode} {check.__name__}"] = {"calls": calls, "wrong": wrong}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=names())
    parser.add_argument("--at-most", type=int, default=4)
    options = parser.parse_args()
    for name in options.names:
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        kept[name] = judged(name, options.at_most)
        print(name, {k: (v["calls"], v["wrong"]) for k, v in kept[name].items()}, flush=True)
        RESULTS.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()

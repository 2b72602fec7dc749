"""Walk every plant and keep what was said of it in ``results/plants.json``.

    python parity_tests/plants_results.py cnn lstm transformer unknown pairs clean
    python parity_tests/plants_results.py cnn --only batch_norm --workers 1

walks the sections named, without names all; what is walked replaces what is kept of it. The
seconds are of a process of its own for each worker, with PyTorch on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import torch

import plants_cnn
import plants_lstm
import plants_transformer
import plants_unknown
from instep import parity
from plants import Plant, TwoPlants
from plants_pairs import PAIRS


RESULTS = Path(__file__).parent / "results" / "plants.json"
STEPS = 3
SEEDS = range(20)  # of the clean pairs
KNOWN = {
    p.workload: p for p in (plants_cnn.PLANTS, plants_lstm.PLANTS, plants_transformer.PLANTS)
}
SECTIONS = (*KNOWN, "unknown", "pairs", "clean")


def names(section: str) -> list[str]:
    """Of what is walked in a section of the results."""
    if section == "clean":
        return [f"{workload} seed {seed}" for workload in KNOWN for seed in SEEDS]
    return list(_listed(section))


def walked(section: str, name: str) -> dict:
    """What is said of one."""
    start = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if section == "clean":
            workload, _, seed = name.split()
            return said(KNOWN[workload].clean(int(seed))) | _since(start)
        plant = _listed(section)[name]
        found = said(plant.make())
    if section == "pairs":
        named = {one for cause in found["causes"] for one in cause}
        return found | {"both": set(plant.causes) <= named} | _since(start)
    if section == "unknown":
        return found | {"placed": placed(plant, found)} | _since(start)
    return found | {"rank": rank(plant, found)} | _since(start)


def said(pair) -> dict:
    report = parity.run(pair, STEPS, precisions=[])
    first = report.first_divergence
    return {
        "verdict": str(report.verdict),
        "first": first and f"{first.stage}: {first.leaf.name}",
        "causes": [[one.mistake for one in cause.explanations] for cause in report.causes],
        "unexplained": [f"{one.part}: {one.place or ''}" for one in report.unexplained],
    }


def rank(plant: Plant, found: dict) -> int | None:
    """Of the right cause in the worst of what was named; None: something has no cause."""
    if found["unexplained"] or not found["causes"]:
        return None
    ranks = [[n for n, one in enumerate(c, 1) if one in plant.cause] for c in found["causes"]]
    return max(r[0] for r in ranks) if all(ranks) else None


def placed(plant: Plant, found: dict) -> bool:
    """Whether the stage, and the module or leaf if it has one, is where it was planted."""
    stage, _, leaf = (found["first"] or ": ").partition(": ")
    where = " ".join([leaf, *found["unexplained"]])
    return stage == plant.stage and (not plant.place or plant.place in where)


def _since(start: float) -> dict:
    return {"seconds": round(time.monotonic() - start, 1)}


def _listed(section: str) -> dict[str, Plant] | dict[str, TwoPlants]:
    if section == "pairs":
        return {two.name: two for two in PAIRS}
    plants = plants_unknown.UNKNOWN if section == "unknown" else KNOWN[section].listed
    return {plant.name: plant for plant in plants}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=", ".join(SECTIONS))
    parser.add_argument("--only", default="", help="names that contain this")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sections = options.sections or SECTIONS
    jobs = [(s, n) for s in sections for n in names(s) if options.only in n]
    for (section, name), row in _all(jobs, options.workers):
        print(section, name, row, flush=True)
        keep(section, name, row)


def _all(jobs: list[tuple[str, str]], workers: int) -> Iterator[tuple[tuple[str, str], dict]]:
    spawn = get_context("spawn")  # what is compiled is never freed, so no process lives long
    with spawn.Pool(workers, torch.set_num_threads, (1,), maxtasksperchild=20) as pool:
        yield from pool.imap_unordered(_one, jobs)


def _one(job: tuple[str, str]) -> tuple[tuple[str, str], dict]:
    return job, walked(*job)


def keep(section: str, name: str, row: dict) -> None:
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept.setdefault(section, {})[name] = row
    ordered = {
        s: {n: kept[s][n] for n in names(s) if n in kept[s]} for s in SECTIONS if s in kept
    }
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Where each mistake of the catalogue is tried, kept in ``results/sites.json``.

    python parity_tests/sites_results.py

walks a pair of each workload of ``plants`` that never sets its gradients to zero, and keeps
the ways in which every mistake may have been made in its first step that diverges.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from unittest import mock

import plants_cnn
import plants_lstm
import plants_transformer
from instep import parity
from instep.parity.diagnosis import _search
from instep.parity.diagnosis._evidence import Evidence
from instep.parity.diagnosis._ways import Ways, _part_of, ways


RESULTS = Path(__file__).parent / "results" / "sites.json"
WORKLOADS = (plants_cnn.PLANTS, plants_lstm.PLANTS, plants_transformer.PLANTS)
PLANT = "zero_grad_forgotten"


def tried(pair) -> dict[str, dict]:
    """By mistake: its part of the step, how many ways there are, and their places."""
    seen: list[Ways] = []

    def kept(evidence: Evidence) -> Ways:
        seen.append(ways(evidence))
        return seen[-1]

    with warnings.catch_warnings(), mock.patch.object(_search, "ways", kept):
        warnings.simplefilter("ignore")
        assert not parity.run(pair, 2, precisions=[]).in_step
    made = [(mistake, variant) for mistake, variant in seen[0].tried]
    made += [(mistake, dial.turn(dial.own)) for mistake, dial in seen[0].turned]
    found: dict[str, dict] = {}
    for mistake, variant in made:
        row = found.setdefault(mistake.name, {"part": _part_of(variant), "ways": 0, "at": []})
        row["ways"] += 1
        if variant.where not in row["at"]:
            row["at"].append(variant.where)
    return found


def main() -> None:
    kept = {}
    for plants in WORKLOADS:
        (plant,) = (one for one in plants.listed if one.name == PLANT)
        kept[plants.workload] = tried(plant.make())
        print(plants.workload, len(kept[plants.workload]), flush=True)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

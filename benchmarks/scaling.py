"""Time, memory and compilation over batch size, depth, accumulation, width and devices.

    python benchmarks/scaling.py [--curves batch,layers] [--against jax-plain,multisteps]
        [--rounds 10] [--json benchmarks/results/NAME.json] [--plot benchmarks/results/NAME.svg]

Every point is a whole ``bench.run`` of a target of ``scaled.py``, the check of equal work
included. Devices are simulated: they share the cores of the host, so their curve shows what
sharding costs, not what it gains.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from instep import bench


CURVES = {
    "batch": [1, 2, 4, 8, 16],
    "layers": [1, 2, 4, 8, 16],
    "k": [1, 2, 4, 8],
    "width": [64, 128, 256, 512],
    "devices": [1, 2, 4, 8],
}
FIXED = {"devices": "_batch16"}  # what else the targets of a curve have
TARGETS = Path(os.path.relpath(Path(__file__).parent / "scaled.py"))  # no folder of a machine


def curve(name: str, against: list[str], settings: bench.Settings) -> list[dict[str, Any]]:
    """A report for every value."""
    found = []
    for value in CURVES[name]:
        target = f"{TARGETS}:gpt{FIXED.get(name, '')}_{name}{value}"
        mine = [x for x in against if fits(x, name, value)]
        flags = os.environ.get("XLA_FLAGS")
        if name == "devices":
            os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={value}"
        report = bench.run(target, mine, settings)
        if name == "devices":
            os.environ.pop("XLA_FLAGS")
            os.environ |= {} if flags is None else {"XLA_FLAGS": flags}
        print(f"{name} = {value}\n{report}", flush=True)
        found.append({"value": value, "report": report.to_dict()})
    return found


def fits(contender: str, name: str, value: int) -> bool:
    """Whether it can run this point: nobody else trains on a mesh, nor accumulates over 1."""
    if name == "devices":
        return contender == "torch-eager"
    return contender != "multisteps" or (name == "k" and value > 1)


QUANTITIES = {
    "ms a step": lambda one: 1e3 * one["step"]["median"],
    "memory, MB": lambda one: one["memory"]["used"] / 1e6,
    "first step, s": lambda one: one["first_step"],
}


def draw(curves: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A row of pictures for every curve."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    grid, axes = plt.subplots(
        len(curves), len(QUANTITIES), figsize=(11, 2.8 * len(curves)), squeeze=False
    )
    for row, (name, points) in zip(axes, curves.items(), strict=True):
        names = dict.fromkeys(c["name"] for p in points for c in p["report"]["contenders"])
        for axis, (quantity, of) in zip(row, QUANTITIES.items(), strict=True):
            for who in names:
                xy = [
                    (p["value"], of(c))
                    for p in points
                    for c in p["report"]["contenders"]
                    if c["name"] == who
                ]
                axis.plot(*zip(*xy, strict=True), marker="o", label=who)
            axis.set(xlabel=name, ylabel=quantity, xscale="log", ylim=(0, None))
            axis.set_xticks(CURVES[name], [str(x) for x in CURVES[name]], minor=False)
            axis.minorticks_off()
        row[0].legend(frameon=False)
    grid.tight_layout()
    grid.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", default=",".join(CURVES), help="names, with commas")
    parser.add_argument("--against", default="torch-eager,jax-plain,multisteps")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--check-steps", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    names = args.curves.split(",")
    if unknown := sorted(set(names) - set(CURVES)):
        parser.error(f"unknown curves {unknown}; there are {list(CURVES)}")
    settings = bench.Settings(args.rounds, check_steps=args.check_steps, device=args.device)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        found[name] = curve(name, args.against.split(","), settings)
        if args.json:  # what there is so far
            args.json.write_text(json.dumps(found, indent=1) + "\n")
    if args.plot:
        draw(found, args.plot)


if __name__ == "__main__":
    main()

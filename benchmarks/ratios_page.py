"""The tables of benchmarks/README.md, from the results of `instep bench` that are kept.

python benchmarks/ratios_page.py            writes them
python benchmarks/ratios_page.py --check    exit 1 if it would write others
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from instep import bench
from marked import filled, write_or_check


HERE = Path(__file__).parent
PAGE = HERE / "README.md"
RESULT = "bench_{}_cpu_2026-11-30.json"

TITLES = {  # by the name of the result
    "digits-mlp": "digits-mlp",
    "digits-cnn": "digits-cnn, 4 microbatches",
    "digits-vit": "digits-vit",
    "text-lstm": "text-lstm",
    "byte-gpt": "byte-gpt, 4 microbatches",
    "gpt-k8": "a GPT, 8 microbatches",
    "resnet18-32": "resnet18-32",
    "resnet18-224": "resnet18-224",
    "resnet50-224": "resnet50-224",
}
KEPT = ("byte-gpt", "gpt-k8", "resnet18-32", "resnet18-224")  # also with --keep-memory
EPYC = {name: title for name, title in TITLES.items() if name != "resnet50-224"}
EPYC_KEPT = {f"{name}-kept": TITLES[name] for name in KEPT}
XEON = {f"{name}-xeon": title for name, title in TITLES.items()}
XEON_KEPT = {f"{name}-kept-xeon": TITLES[name] for name in ("text-lstm", *KEPT)}
OTHERS = {
    "torch-eager": "PyTorch eager",
    "torch-compile": "`torch.compile`",
    "jax-plain": "by hand in jax",
    "flax": "Flax's loop",
    "multisteps": "`MultiSteps`",
}


def contenders(name: str) -> dict[str, dict[str, Any]]:
    """What one result says of each, by name."""
    result = json.loads((HERE / "results" / RESULT.format(name)).read_text())
    return {one["name"]: one for one in result["contenders"]}


def milliseconds(one: dict[str, Any]) -> str:
    ms = 1e3 * one["step"]["median"]
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:.2g}" if ms < 1 else f"{ms:.3g}"


def ratio(above: dict[str, Any], below: dict[str, Any] | None) -> str:
    """The median with its interval; bold where it is above 1, and the interval too."""
    if below is None:
        return ""
    r = bench.paired_ratio(above["rounds"], below["rounds"])
    return with_interval(r, "**" if r.verdict == "above 1" else "")


def with_interval(r: bench.Ratio, around: str = "") -> str:
    """``0.47 (0.37 to 0.50)``, with ``around`` on both sides of the median."""
    digits = 3 if r.median < 0.1 else 2
    median, low, high = (f"{x:.{digits}f}" for x in (r.median, r.low, r.high))
    return f"{around}{median}{around} ({low} to {high})"


def table(of: str, others: dict[str, str], titles: dict[str, str]) -> str:
    """The step of contender ``of`` over the others', a row for every result that has it."""
    lines = [
        "| | ms | " + " | ".join(others.values()) + " |",
        "|---" * (2 + len(others)) + "|",
    ]
    for name, title in titles.items():
        found = contenders(name)
        if of in found:
            cells = [ratio(found[of], found.get(other)) for other in others]
            lines.append(f"| {title} | {milliseconds(found[of])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def block() -> str:
    """The tables, and the words between them."""
    torch = {name: OTHERS[name] for name in ("torch-eager", "torch-compile")}
    of_lowered = torch | {"instep": "the Flax half"}
    return "\n\n".join(
        [
            table("instep", OTHERS, EPYC),
            "Lowered from PyTorch by `from_torch`, instead of written in Flax:",
            table("instep-lowered", of_lowered, EPYC),
            "With `--keep-memory`, in the process of every contender:",
            table("instep", torch, EPYC_KEPT),
            "Lowered from PyTorch, with `--keep-memory`:",
            table("instep-lowered", of_lowered, EPYC_KEPT),
            "On another processor, a Xeon with AVX-512, two cores as well:",
            table("instep", OTHERS, XEON),
            "Lowered from PyTorch, on the Xeon:",
            table("instep-lowered", of_lowered, XEON),
            "On the Xeon, with `--keep-memory`:",
            table("instep", torch, XEON_KEPT),
            "Lowered from PyTorch, on the Xeon, with `--keep-memory`:",
            table("instep-lowered", of_lowered, XEON_KEPT),
        ]
    )


def page(text: str) -> str:
    """The README with the tables between its markers."""
    return filled(text, "ratios", block())


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page, (__doc__ or "").partition("\n")[0]))

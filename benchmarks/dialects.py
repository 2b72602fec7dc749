"""What optax and flax do differently from PyTorch, by how much, and what instep does.

    python benchmarks/dialects.py            measures every row and writes docs/dialects.md
    python benchmarks/dialects.py --check    exit 1 if a number has changed its magnitude

The code in a cell is the code that was run: it is evaluated from the rows in ``dialect``. Rows
whose cells say less than a whole loop have a loop of their own there.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from importlib.metadata import version
from pathlib import Path

from dialect import RATES, ROUNDING, STEPS, Dialect, Difference
from dialect.around import ACCUMULATION, AVERAGES, CLIP, SCALER
from dialect.optimizers import ADAM, OTHERS, SGD
from dialect.schedules import SCHEDULES


PAGE = Path(__file__).parent.parent / "docs" / "dialects.md"

FAMILIES = {
    "SGD": SGD,
    "Adam and its relatives": ADAM,
    "The other optimizers, absent gradients, groups": OTHERS,
    "Schedules": SCHEDULES,
    "Clipping": CLIP,
    "Loss scaling": SCALER,
    "Gradient accumulation": ACCUMULATION,
    "Averaged weights": AVERAGES,
}
PACKAGES = ("torch", "optax", "flax", "jax")
INTRODUCTION = """\
# Dialects

What PyTorch, instep and the nearest thing in optax or flax make of the same training, and by
how much the second and the third differ from the first. `python benchmarks/dialects.py` makes
it, and evaluates the code in the cells.
Measured with {versions}.

All in float64, unless a cell says otherwise. *Optimizers* take {steps} steps (LBFGS: a few
calls) on the mean squared error of a tanh network of 4, 6 and 3 units, each with the gradients
of that one function at its own parameters. A difference is max|difference| / max|leaf| of the
worst parameter at the end; "of the way" is the same over the largest distance that an element
of the leaf has travelled in PyTorch. *Schedules*: the largest relative difference of the
rate in {rates} steps, with a base rate of 0.1. *Clipping*: the gradients. *Loss scaling*: the
scale, or the parameters after ten steps. What is below 1e-12 is rounding.
"""
HEAD = ("PyTorch", "instep", "instep's difference", "nearest in optax or flax")


Numbers = dict[tuple[str, str], Difference]


def measured(rows: dict[str, tuple[Dialect, ...]] = FAMILIES) -> Numbers:
    found = {}
    for family in rows.values():
        for row in family:
            found[row.torch, row.other] = row()
            print(f"{row.torch[:60]:<60} {row.other[:60]:<60}", end=" ")
            print(*(number(x) for x in found[row.torch, row.other]), flush=True)
    return found


def render(numbers: Numbers, versions: str) -> str:
    parts = [INTRODUCTION.format(versions=versions, steps=STEPS, rates=RATES)]
    for family, rows in FAMILIES.items():
        way = any(numbers[row.torch, row.other].of_the_way is not None for row in rows)
        head = (*HEAD, "its difference", *(("of the way",) if way else ()), "why")
        lines = [f"## {family}", "", cells(head), cells("---" for _ in head)]
        for row in rows:
            found = numbers[row.torch, row.other]
            other = (number(found.other), *((number(found.of_the_way),) if way else ()))
            ours = row.ours if "`" in row.ours else f"`{row.ours}`"
            first = (f"`{row.torch}`", ours, number(found.ours), f"`{row.other}`")
            lines.append(cells((*first, *other, row.why)))
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def cells(texts) -> str:
    return f"| {' | '.join(texts)} |"


def number(x: float | None) -> str:
    if x is None:
        return ""
    return "0" if x == 0 else f"{x:.1e}"


def read(page: str) -> tuple[Numbers, str]:
    """The numbers of a page, and the versions that it names."""
    numbers, way = {}, False
    for line in page.splitlines():
        texts = line.strip("| ").split(" | ")
        if texts[0] == HEAD[0]:
            way = "of the way" in texts
        elif texts[0].startswith("`"):
            key = (texts[0].strip("`"), texts[3].strip("`"))
            values = (texts[2], texts[4], *(texts[5:6] if way else ()))
            numbers[key] = Difference(*(float(x) if x else None for x in values))
    (versions,) = re.findall(r"^Measured with (.*)\.$", page, re.MULTILINE)
    return numbers, versions


def changed(old: Numbers, new: Numbers, factor: float) -> list[str]:
    """The rows of which a number differs by more than ``factor``; rounding is not compared."""
    lines = []
    for key, now in new.items():
        then = old.get(key)
        if then is None:
            lines.append(f"{key}: not on the page")
            continue
        for a, b in zip(then[1:], now[1:], strict=True):
            if not alike(a, b, factor):
                lines.append(f"{key}: {number(a)} on the page, {number(b)} now")
    return lines


def alike(a: float | None, b: float | None, factor: float) -> bool:
    if a is None or b is None or math.isnan(a) or math.isnan(b):
        return str(a) == str(b)
    a, b = max(a, ROUNDING), max(b, ROUNDING)
    return a <= factor * b and b <= factor * a


def out_of_step(numbers: Numbers) -> list[str]:
    """The rows in which instep's own column is not rounding."""
    return [
        f"{row.ours}: {number(numbers[row.torch, row.other].ours)} from PyTorch"
        for rows in FAMILIES.values()
        for row in rows
        if not numbers[row.torch, row.other].ours <= row.rounding
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the page, write nothing"
    )
    args = parser.parse_args()
    numbers = measured()
    failed = out_of_step(numbers)
    if args.check:
        failed += changed(read(PAGE.read_text())[0], numbers, factor=10.0)
    else:
        versions = ", ".join(f"{p} {version(p).partition('+')[0]}" for p in PACKAGES)
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(render(numbers, versions))
    print(*failed, sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

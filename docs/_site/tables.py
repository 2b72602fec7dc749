"""A page for each row of docs/causes.md and docs/dialects.md, from what these are made of."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import NamedTuple

from links import ROOT, slug


sys.path += [str(ROOT / "benchmarks"), str(ROOT / "src")]

import dialects as measured

from instep.parity.diagnosis._mistake import Mistake
from instep.parity.diagnosis._step import PARTS
from instep.parity.diagnosis._ways import CATALOGUE


RESULTS = ROOT / "parity_tests" / "results"
WORKLOADS = {"cnn": "CNN", "lstm": "LSTM", "transformer": "transformer"}


class Page(NamedTuple):
    """One row."""

    key: str  # of its row in the table
    name: str  # in the navigation
    page: str
    text: str


# ------------------------------------------------------------------------------- causes


@cache
def causes_pages() -> tuple[Page, ...]:
    plants = json.loads((RESULTS / "plants.json").read_text())
    sites = json.loads((RESULTS / "sites.json").read_text())
    return tuple(
        Page(name, name, f"causes/{name}.md", _cause(mistake, plants, sites))
        for name, mistake in CATALOGUE.items()
    )


def _cause(mistake: Mistake, plants: dict, sites: dict) -> str:
    family = (sys.modules[mistake.variants.__module__].__doc__ or "").split(":")[0]
    family = " ".join(family.split(".")[0].split())
    lines = [
        f"# {_title(mistake.says)}\n",
        f"`{mistake.name}`, one of the [{family[0].lower()}{family[1:]}](../causes.md).\n",
        "| | |\n|---|---|",
        f"| what happened | {_cell(mistake.says)} |",
        f"| what to do | {_cell(mistake.fix)} |",
        f"| stage | {_stage(mistake.name, sites)} |\n",
    ]
    if mistake.special:
        lines.append("It can imitate others, and is named only if none of them explains.\n")
    return "\n".join([*lines, *_sites(mistake.name, sites), *_plants(mistake.name, plants)])


def _title(says: str) -> str:
    """The sentence, or what is before its first colon, semicolon or comma if it is long."""
    says = says.rstrip(".")
    for mark in (r":|;|\. ", r",| \("):
        says = says if len(says) <= 60 else re.split(mark, says)[0]
    return says


def _stage(name: str, sites: dict) -> str:
    parts = list(dict.fromkeys(rows[name]["part"] for rows in sites.values() if name in rows))
    if not parts:
        return "not tried in the three workloads below, whose loops have no place for it"
    return "; ".join(f"{part}: it makes {', '.join(PARTS[part])}" for part in parts)


def _sites(name: str, sites: dict) -> list[str]:
    rows = {w: sites[w][name] for w in WORKLOADS if name in sites[w]}
    if not rows:
        return []
    lines = [
        "## Where it is tried\n",
        "The ways in which it may have been made in one step of three small pairs. "
        "`python parity_tests/sites_results.py` counts them.\n",
        "| pair | ways | places |\n|---|---|---|",
    ]
    for workload, row in rows.items():
        at = [f"`{x}`" if x else "everywhere" for x in row["at"]]
        most = at if len(at) <= 8 else [*at[:8], f"{len(at) - 8} more"]
        lines.append(f"| {WORKLOADS[workload]} | {row['ways']} | {', '.join(most)} |")
    return [*lines, ""]


def _plants(name: str, plants: dict) -> list[str]:
    rows = []
    for section, title in {**WORKLOADS, "pairs": "two mistakes"}.items():
        for plant, row in plants[section].items():
            for cause in row["causes"]:
                if name in cause:
                    rest = ", ".join(_link(one) for one in cause if one != name)
                    said = row.get("rank") or "both" * bool(row.get("both"))
                    first = f"`{row['first']}`"
                    rows.append(f"| {title} | `{plant}` | {first} | {said} | {rest} |")
    lines = ["## Planted by hand, and found\n"]
    if not rows:
        return [*lines, "Not among the plants of `plants.json`.\n"]
    lines += [
        "Mistakes written into the JAX half of a pair, and what the walk of 3 steps said: the "
        "first leaf that diverged, the rank of the right cause among those named (both: of two "
        "mistakes both were named), and what makes the same numbers there. "
        "`python parity_tests/plants_results.py` walks them.\n",
        "| pair | plant | first divergence | rank | the same numbers |\n|---|---|---|---|---|",
        *rows,
        "",
    ]
    return lines


def _link(name: str) -> str:
    return f"[`{name}`]({name}.md)"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def causes(markdown: str) -> str:
    """The table with a link in every row."""
    return re.sub(
        r"^\| `(\w+)` \|", r"| [`\1`](causes/\1.md) |", markdown, flags=re.MULTILINE
    )


# ------------------------------------------------------------------------------- dialects


@cache
def dialects_pages() -> tuple[Page, ...]:
    numbers, versions = measured.read(measured.PAGE.read_text())
    pages, taken = [], set()
    for family, rows in measured.FAMILIES.items():
        for row in rows:
            name = _names(row)
            while name in taken:  # the rows after the first are other settings of the same
                base, _, n = name.partition(", ")
                name = f"{base}, {int(n or 1) + 1}"
            taken.add(name)
            page = f"dialects/{slug(name.replace('.', '-'))}.md"
            text = _dialect(name, family, row, numbers[row.torch, row.other], versions)
            pages.append(Page(f"{row.torch} {row.other}", name, page, text))
    return tuple(pages)


def _names(row: measured.Dialect) -> str:
    """``AdamW and optax.adamw``: what a row compares."""
    theirs = re.findall(r"(?:torch\.optim|lr_scheduler|swa_utils|torch\.amp)\.(\w+)", row.torch)
    theirs = theirs or re.findall(r"torch\.nn\.utils\.(\w+)|(loss\w*)", row.torch)
    first = theirs[0] if isinstance(theirs[0], str) else "".join(theirs[0])
    first = {"loss": "Accumulated gradients", "loss_sum": "Ragged microbatches"}.get(
        first, first
    )
    if len(theirs) > 1 and "; lr_scheduler" in row.torch:
        first += f" with {theirs[-1]}"
    found = re.findall(r"optax(?:\.contrib)?\.(\w+)|(DynamicScale)", row.other)
    names = [a or b for a, b in found]
    chained = [n for n in names if n not in ("chain", "scale", "add_decayed_weights")]
    other = f"optax's {(chained or names)[0]}" if names else "a lambda"
    if names == ["DynamicScale"]:
        other = "Flax's DynamicScale"
    return f"{first} and {other}"


def _dialect(name: str, family: str, row, found, versions: str) -> str:
    number = measured.number
    ours = row.ours if "`" in row.ours else f"`{row.ours}`"
    lines = [
        f"# {name}\n",
        f"{row.why}\n",
        f"One of the [dialects](../dialects.md#{slug(family)}): three lines that mean to do "
        "the same.\n",
        f"**PyTorch**\n\n```python\n{_wrapped(row.torch)}\n```\n",
        f"**instep**\n\n```python\n{_wrapped(row.ours)}\n```\n"
        if "`" not in row.ours
        else f"**instep**: {ours}\n",
        f"**nearest in optax or Flax**\n\n```python\n{_wrapped(row.other)}\n```\n",
        "| difference from PyTorch | |\n|---|---|",
        f"| instep | {number(found.ours)} |",
        f"| the nearest in optax or Flax | {number(found.other)} |",
    ]
    if found.of_the_way is not None:
        lines.append(f"| the same, of the way travelled | {number(found.of_the_way)} |")
    lines.append(
        f"\nMeasured with {versions} by `python benchmarks/dialects.py`; "
        "[how](../dialects.md) is said above the table.\n"
    )
    return "\n".join(lines)


def _wrapped(code: str) -> str:
    """A cell as lines: the scheduler and the comment on lines of their own."""
    code, _, comment = code.partition("  # ")
    lines = [f"# {comment}"] if comment else []
    return "\n".join([*lines, *code.split("; ")])


def dialects(markdown: str) -> str:
    """The table with a link in the last cell of every row."""
    pages = {page.key: page.page for page in dialects_pages()}
    lines = []
    for line in markdown.splitlines():
        texts = line.strip("| ").split(" | ")
        if texts[0].startswith("`"):
            key = f"{texts[0].strip('`')} {texts[3].strip('`')}"
            line = f"{line.removesuffix(' |')} [page]({pages[key]}) |"
        lines.append(line)
    return "\n".join(lines) + "\n"

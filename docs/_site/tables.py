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

    family: str
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
        Page(_family(mistake), name, name, f"causes/{name}.md", _cause(mistake, plants, sites))
        for name, mistake in CATALOGUE.items()
    )


def _cause(mistake: Mistake, plants: dict, sites: dict) -> str:
    family = _family(mistake)
    lines = [
        f"# {_title(mistake.says)}\n",
        f"`{mistake.name}`, one of the [{family[0].lower()}{family[1:]}](../causes.md).\n",
        f"**What happened.** {mistake.says}\n",
        f"**What to do.** {mistake.fix}\n",
        f"**Stage.** {_stage(mistake.name, sites)}\n",
    ]
    if mistake.special:
        lines.append("It can imitate others, and is named only if none of them explains.\n")
    return "\n".join([*lines, *_sites(mistake.name, sites), *_plants(mistake.name, plants)])


def _family(mistake: Mistake) -> str:
    """The title of its table, as benchmarks/causes_page.py makes it."""
    says = (sys.modules[mistake.variants.__module__].__doc__ or "").partition(".")[0]
    return " ".join(says.partition(":")[0].replace("``", "").split())


def _title(says: str) -> str:
    """The sentence, or what is before its first colon, semicolon or comma if it is long."""
    says = says.rstrip(".")
    for mark in (r":|;|\. ", r",| \("):
        first = re.split(mark, says)[0]
        says = first if len(says) > 60 and len(first) >= 20 else says
    return says


def _stage(name: str, sites: dict) -> str:
    parts = list(dict.fromkeys(rows[name]["part"] for rows in sites.values() if name in rows))
    if not parts:
        return "The loops of the three pairs of `parity_tests/plants.py` have no place for it."
    return " ".join(f"{part}, which makes {', '.join(PARTS[part])}." for part in parts)


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
    return f"[{_breakable(name)}]({name}.md)"


def _breakable(name: str) -> str:
    """A name as code, broken after an underscore where a table has no room for it."""
    return f"<code>{name.replace('_', '_<wbr>')}</code>"


def causes(markdown: str) -> str:
    """The table with a link in every row."""

    def row(match: re.Match) -> str:
        return f"| [{_breakable(match[1])}](causes/{match[1]}.md) |"

    return re.sub(r"^\| `(\w+)` \|", row, markdown, flags=re.MULTILINE)


# ------------------------------------------------------------------------------- dialects


@cache
def dialects_pages() -> tuple[Page, ...]:
    numbers, versions = measured.read(measured.PAGE.read_text())
    names, pages = _distinct([row for rows in measured.FAMILIES.values() for row in rows]), []
    for family, rows in measured.FAMILIES.items():
        for row in rows:
            key = f"{row.torch} {row.other}"
            page = f"dialects/{re.sub(r'[^a-z0-9_.]+', '-', names[key].lower()).strip('-')}.md"
            text = _dialect(names[key], family, row, numbers[row.torch, row.other], versions)
            pages.append(Page(family, key, names[key], page, text))
    return tuple(pages)


def _distinct(rows: list[measured.Dialect]) -> dict[str, str]:
    """Key -> name. Where several rows compare the same two, what sets them apart is added."""
    names = {f"{row.torch} {row.other}": _names(row) for row in rows}
    of = {f"{row.torch} {row.other}": row for row in rows}
    for settings in (_comment, _flags, _keywords, _keywords_of_torch, _arguments):
        for name in {n for n in names.values() if list(names.values()).count(n) > 1}:
            said = {key: settings(of[key]) for key, n in names.items() if n == name}
            if len(set(said.values())) > 1:
                names |= {key: f"{name}: {one}" for key, one in said.items() if one}
    return names


def _names(row: measured.Dialect) -> str:
    """``AdamW and optax's adamw``: what a row compares."""
    theirs = re.findall(r"(?:torch\.optim|lr_scheduler|swa_utils|torch\.amp)\.(\w+)", row.torch)
    theirs = theirs or re.findall(r"torch\.nn\.utils\.(\w+)", row.torch)
    first = theirs[0] if theirs else "Accumulated gradients"
    if "; lr_scheduler" in row.torch:
        first += f" with {theirs[-1]}"
    if "DynamicScale" in row.other:
        return f"{first} and Flax's DynamicScale"
    found = re.findall(r"optax(?:\.contrib)?\.(\w+)", row.other)
    around = ("chain", "scale", "add_decayed_weights")  # what stands beside the rule itself
    rules = [name for name in found if name not in around] or found
    return f"{first} and optax's {rules[0]}" if rules else f"{first} and a lambda"


def _comment(row: measured.Dialect) -> str:
    return row.torch.partition("  # ")[2]


def _flags(row: measured.Dialect) -> str:
    flag = r"\w+=(?:True|False|None|'\w+')"
    return ", ".join(re.findall(flag, row.torch) or re.findall(flag, row.other))


def _keywords(row: measured.Dialect) -> str:
    return ", ".join(re.findall(r"\w+=[\w.-]+(?=[,)])", row.other))


def _keywords_of_torch(row: measured.Dialect) -> str:
    return ", ".join(re.findall(r"\w+=[\w.-]+(?=[,)])", row.torch))


def _arguments(row: measured.Dialect) -> str:
    return re.sub(r"^[^(]*", "", row.other.partition("  # ")[0])[:60]


def _dialect(name: str, family: str, row, found, versions: str) -> str:
    number = measured.number
    ours = row.ours if "`" in row.ours else f"`{row.ours}`"
    lines = [
        f"# {escaped(name)}\n",
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
        way = "the same, over the largest distance travelled in PyTorch"
        lines.append(f"| {way} | {number(found.of_the_way)} |")
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
    """The tables without the code, which is on the page of each row."""
    pages, found = {page.key: page for page in dialects_pages()}, []
    for line in markdown.splitlines():
        texts = line.strip("| ").split(" | ")
        if texts[0] == measured.HEAD[0]:
            line = "| compared | instep's difference | the other's | why |"
        elif line.startswith("| ---"):
            line = "| --- | --- | --- | --- |"
        elif texts[0].startswith("`"):
            page = pages[f"{texts[0].strip('`')} {texts[3].strip('`')}"]
            shown = f"[{escaped(page.name)}]({page.page})"
            line = f"| {shown} | {texts[2]} | {texts[4]} | {texts[-1]} |"
        found.append(line)
    text = "\n".join(found) + "\n"
    text = text.replace("evaluates the code in the cells", "evaluates the code of each row")
    return text.replace('; "of the way" is', "; the page of a row also has")


def escaped(text: str) -> str:
    return re.sub(r"([\\_*\[\]|])", r"\\\1", text)

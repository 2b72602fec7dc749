"""The pages that are made at build time, and the navigation. Run by mkdocs-gen-files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mkdocs_gen_files


sys.path.insert(0, str(Path(__file__).parent))

import links
import notebook_page
import readme
import reference
import tables
from links import ROOT


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
shown: set[str] = set()  # files that are no page, and that a page links to


def write(page: str, text: str, source: str = "") -> None:
    """A page; ``source``: the file of the repository that its links start from."""
    if source:
        text = links.rewrite(text, source, page, readme.anchors(), shown.add)
    with mkdocs_gen_files.open(page, "w") as file:
        file.write(text)


def copies() -> None:
    """Pages whose text is a file, or a part of one, elsewhere in the repository."""
    for page, names in readme.PAGES.items():
        write(page, readme.page(names), "README.md")
    for source, page in links.PAGES.items():
        if source != "README.md" and (ROOT / source).is_file():
            write(page, (ROOT / source).read_text(), source)
    for page in sorted((ROOT / "docs").glob("*.md")):
        links.rewrite(page.read_text(), f"docs/{page.name}", "", {}, shown.add)
    for name in readme.HELD:
        links.rewrite(readme.SECTIONS[name], "README.md", "", {}, shown.add)


def results() -> None:
    """The files of measurements, and a table of them."""
    rows = ["# Result files\n", "| file | made of commit | with |", "|---|---|---|"]
    for path in RESULTS:
        kept = json.loads(path.read_text())
        at = kept.get("environment", {})
        versions = ", ".join(f"{k} {at[k]}" for k in ("jax", "torch", "optax") if k in at)
        name = path.relative_to(ROOT).as_posix()
        shown.add(name)
        link = f"[{path.stem}](../files/{name})"
        rows.append(f"| {link} | {kept.get('commit', 'not kept')} | {versions} |")
    write("benchmarks/results.md", "\n".join(rows) + "\n")


def files() -> None:
    """What a page links to and is no page: JSON as it is, source as a page of it."""
    for name in sorted(shown):
        text = (ROOT / name).read_text()
        if name.endswith(".json"):
            write(f"files/{name}", text)
        else:
            fence = "python" if name.endswith(".py") else ""
            write(f"files/{name}.md", f"# {name}\n\n````{fence}\n{text}````\n")


def notebooks() -> list[str]:
    for path in NOTEBOOKS:
        with mkdocs_gen_files.open(f"notebooks/{path.name}", "w") as file:
            file.write(notebook_page.shown(path, shown.add))
    return [f"    * [{_title(path)}](notebooks/{path.name})" for path in NOTEBOOKS]


def _title(path: Path) -> str:
    """The first heading of a notebook."""
    for cell in json.loads(path.read_text())["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "):
                return line.removeprefix("# ").strip()
    return path.stem


def grouped(pages: tuple[tables.Page, ...]) -> list[str]:
    """Entries of the navigation, under their families."""
    lines = []
    for family in dict.fromkeys(page.family for page in pages):
        lines.append(f"    * {family}")
        for page in pages:
            if page.family == family:
                lines.append(f"        * [{tables.escaped(page.name)}]({page.page})")
    return lines


copies()
results()
nav = [
    "* [Start](index.md)",
    "* Guide for porters",
    "    * [Bring your own loop](guide/loop.md)",
    "    * [Prove your own port](guide/prove.md)",
    "    * [Your recipe, in JAX](guide/recipe.md)",
    "    * [A run that survives](guide/run.md)",
    "    * [Custom gradients](custom_gradients.md)",
    "    * [A GAN](gan.md)",
    "    * [Losses](losses.md)",
    "    * [Mixed precision](precision.md)",
    "* [How parity is judged](parity.md)",
    "* What goes wrong",
    "    * [The catalogue](causes.md)",
    *grouped(tables.causes_pages()),
    "* Dialects",
    "    * [All differences](dialects.md)",
    *grouped(tables.dialects_pages()),
    "* Notebooks",
    *notebooks(),
    "* Reference",
    *(f"    * [{room}](api/{room}.md)" for room in reference.ROOMS),
    "* Benchmarks",
    "    * [How to run, and what was measured](benchmarks/index.md)",
    "    * [Notes](benchmarks/notes.md)",
    "    * [Result files](benchmarks/results.md)",
    "* [What is claimed](claims.md)",
    "* [Platforms and versions](platforms.md)",
]
if (ROOT / "CONTRIBUTING.md").exists():
    nav.append("* [Contributing](contributing.md)")
for made in (*tables.causes_pages(), *tables.dialects_pages()):
    write(made.page, made.text)
for page, text in reference.pages().items():
    write(page, text)
files()
write("SUMMARY.md", "\n".join(nav) + "\n")

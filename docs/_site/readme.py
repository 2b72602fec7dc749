"""The sections of the README, and the page of the site that each of them is on."""

from __future__ import annotations

import re

from links import ROOT, slug


# The site's pages, and the sections that they are made of. The first one keeps the title.
PAGES = {
    "index.md": ("", "Two commands", "The same step, twice", "Install"),
    "guide/loop.md": ("Bring your own loop",),
    "guide/prove.md": ("Prove your own port", "Which weight is which"),
    "guide/recipe.md": ("Your recipe, in JAX", "Mixed precision", "PyTorch's losses"),
    "guide/run.md": ("A run that survives",),
    "claims.md": ("What is claimed, and where it is shown",),
}
# Sections that a page of docs/ holds by ``<!-- README: heading -->``.
HELD = {
    'What "in step" means': "parity.md",
    "How fast it is": "benchmarks/index.md",
    "Tested versions": "platforms.md",
}


def split() -> dict[str, str]:
    """The text of the README under each of its second headings; first what is before."""
    parts = re.split(r"^## (.+)\n", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


SECTIONS = split()


def anchors() -> dict[str, str]:
    """Anchor of a section -> its page."""
    of = {name: page for page, names in PAGES.items() for name in names} | HELD
    missing = set(SECTIONS) - set(of)
    if missing or set(of) - set(SECTIONS):
        raise KeyError(f"sections of README.md and pages differ: {set(of) ^ set(SECTIONS)}")
    return {slug(name): page for name, page in of.items() if name}


def page(names: tuple[str, ...]) -> str:
    """These sections as one page; the first heading is its title."""
    first, *rest = names
    title = f"# {first}\n" if first else ""
    return title + SECTIONS[first] + "".join(f"## {n}\n{SECTIONS[n]}" for n in rest)

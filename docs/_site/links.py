"""Where a file of the repository is on the site, and links between the two rewritten."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path


ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/NOTES.md": "benchmarks/notes.md",
    "benchmarks/results": "benchmarks/results.md",
}
LINK = re.compile(r"(?<=\]\()([^()\s]+)(?=\))")
CODE = re.compile(r"(^ *```.*?^ *```$|``[^`\n]*``|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and the site make it."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """``markdown`` with everything that is not code changed."""
    parts = CODE.split(markdown)
    return "".join(part if n % 2 else change(part) for n, part in enumerate(parts))


def links(markdown: str) -> Iterator[str]:
    """The targets of the links, without those that are shown as code."""
    # A link whose text has code in it is cut into parts, which are joined again.
    yield from LINK.findall("".join(CODE.split(markdown)[::2]))


def headings(markdown: str) -> list[str]:
    text = re.sub(r"^ *```.*?^ *```$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE)


def is_external(link: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*:", link) is not None


def target(link: str, source: str) -> tuple[str, str]:
    """The file of the repository that a link in ``source`` means, and the anchor."""
    path, _, anchor = link.partition("#")
    if not path:
        return source, anchor
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path)), anchor


def on_site(path: str, anchor: str, sections: dict[str, str]) -> str:
    """The page that shows a file. ``sections``: the pages of the README, by anchor."""
    if path == "README.md" and anchor in sections:
        return sections[anchor]
    if path in PAGES:
        return PAGES[path]
    if path.startswith("notebooks/"):
        return path
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.endswith(".json"):
        return f"files/{path}"
    return f"files/{path}.md"


def rewrite(
    markdown: str,
    source: str,
    page: str,
    sections: dict[str, str],
    used: Callable[[str], None] = lambda path: None,
) -> str:
    """Text of the file ``source`` with its links as the site's ``page`` needs them.

    Args:
      markdown: the text, or a part of it.
      source: file of the repository.
      page: of the site, where the text will stand.
      sections: the pages on which the README's sections are, by anchor.
      used: is told every file of the repository that the site must show for a link.
    """

    def one(match: re.Match) -> str:
        link = match.group()
        if is_external(link):
            return link
        path, anchor = target(link, source)
        there = on_site(path, anchor, sections)
        if there.startswith("files/"):
            used(path)
        if there == page and anchor:
            return f"#{anchor}"
        relative = posixpath.relpath(there, posixpath.dirname(page) or ".")
        return relative + (f"#{anchor}" if anchor else "")

    return outside_code(markdown, lambda text: LINK.sub(one, text))

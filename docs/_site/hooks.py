"""What a page of docs/ becomes on the site: links, sections of the README, two columns."""

from __future__ import annotations

import re
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent))

import links
import readme


COLUMNS = re.compile(
    r"<table>\n<tr><th>(.*?)</th><th>(.*?)</th></tr>\n<tr><td>\n(.*?)\n</td><td>\n(.*?)\n"
    r"</td></tr>\n</table>",
    re.DOTALL,
)
SECTION = re.compile(r"<!-- README: (.+?) -->")


def beside(match: re.Match) -> str:
    """A table of two pieces of code, as two blocks that stand below each other on a phone."""
    left, right, *code = match.groups()
    blocks = (
        f'<div markdown="1">\n\n**{title}**\n\n{text}\n\n</div>'
        for title, text in zip((left, right), code, strict=True)
    )
    return '<div class="beside" markdown="1">\n' + "\n".join(blocks) + "\n</div>"


def on_page_markdown(markdown: str, *, page, config, files) -> str:
    name = page.file.src_uri
    if (links.ROOT / "docs" / name).exists() and name.endswith(".md"):
        sections = readme.anchors()
        markdown = links.rewrite(markdown, f"docs/{name}", name, sections)

        def section(match: re.Match) -> str:
            return links.rewrite(readme.SECTIONS[match[1]], "README.md", name, sections).strip()

        markdown = SECTION.sub(section, markdown)
        if name in ("causes.md", "dialects.md"):
            import tables

            markdown = getattr(tables, name.removesuffix(".md"))(markdown)
    return COLUMNS.sub(beside, markdown)

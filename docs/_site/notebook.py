"""A notebook as the site shows it: its links, its formulas, and where its outputs are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import links
import readme

from docstrings import mathml


BLOCK = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\$([^$]+?)\$")
PAGE = re.compile(r"(?<=\]\()([^():\s]+)\.(?:md|ipynb)\b")  # mkdocs leaves it as it is
OUTPUTS = """\n
*Shown without its outputs.* `jupyter execute --inplace {page}` makes them, figures included.
"""


def shown(path: Path, used: Callable[[str], None]) -> str:
    """The JSON of a notebook for its page. ``used``: as of ``links.rewrite``."""
    page, notebook = f"notebooks/{path.name}", json.loads(path.read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            text = links.rewrite(text, page, page, readme.anchors(), used)
            cell["source"] = links.outside_code(PAGE.sub(r"\1.html", text), formulas)
    notebook["cells"][0]["source"] += OUTPUTS.format(page=page)
    return json.dumps(notebook)


def formulas(text: str) -> str:
    """MathML for LaTeX, which a browser draws without any script."""
    text = BLOCK.sub(lambda match: mathml(match[1], "block"), text)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), text)

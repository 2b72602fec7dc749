"""A notebook as the site shows it: its outputs, its links and its formulas."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import links
import readme
from markup import mathml


BLOCK = re.compile(r"\$\$(.+?)\$\$", re.DOTALL)
INLINE = re.compile(r"\$([^$]+?)\$")
PAGE = re.compile(r"(?<=\]\()([^():\s]+)\.(?:md|ipynb)\b")  # mkdocs leaves it as it is
EXECUTED = links.ROOT / ".cache" / "notebooks"  # of `make notebooks`
BARE = """\n
*Shown without its outputs.* `make notebooks` makes them, figures included.
"""


def shown(path: Path, used: Callable[[str], None]) -> str:
    """The JSON of a notebook for its page. ``used``: as of ``links.rewrite``."""
    page, executed = f"notebooks/{path.name}", EXECUTED / path.name
    notebook = json.loads((executed if executed.exists() else path).read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            text = links.rewrite(text, page, page, readme.anchors(), used)
            cell["source"] = links.outside_code(PAGE.sub(r"\1.html", text), formulas)
    if not executed.exists():
        notebook["cells"][0]["source"] += BARE
    return json.dumps(notebook)


def formulas(text: str) -> str:
    """MathML for LaTeX, which a browser draws without any script."""
    text = BLOCK.sub(lambda match: mathml(match[1], "block"), text)
    return INLINE.sub(lambda match: mathml(match[1], "inline"), text)

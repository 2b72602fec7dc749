"""What docstrings have of reStructuredText, as Markdown: math, links and roles."""

from __future__ import annotations

import re
import textwrap

import griffe
from latex2mathml.converter import convert


DISPLAY = re.compile(r"^( *)\.\. math::(.*(?:\n(?:\1 +\S.*| *(?=\n)))*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
LINK = re.compile(r"`([^`<]+?)\s*<(https?://[^>]+)>`_+", re.DOTALL)
NAMES = re.compile(r"^( *(?:\w+, )+\w+,)\n +(?=(?:\w+, )*\w+: )", re.MULTILINE)  # on two lines
ROLE = re.compile(r":(?:func|class|meth|mod|attr|data|obj):`~?([^`]+)`")


def mathml(latex: str, display: str) -> str:
    """One line of MathML, which browsers draw without any script."""
    text = " ".join(latex.split())
    rows = text.replace(r"\text{max\_norm}", r"\text{max_norm}")
    if display == "block" and (r"\\" in rows or "&" in rows) and r"\begin{" not in rows:
        rows = rf"\begin{{align*}} {rows} \end{{align*}}"
    made = convert(rows, display=display).replace(
        ' xmlns="http://www.w3.org/1998/Math/MathML"', ""
    )
    tag = "div" if display == "block" else "span"  # Markdown takes <math> for a block
    return f'<{tag} class="{"math" if tag == "div" else "in-line"}">{made}</{tag}>'


def markdown(text: str) -> str:
    """The text of a docstring for Python-Markdown."""

    def display(match: re.Match) -> str:
        return f"\n{match[1]}{mathml(textwrap.dedent(match[2]), 'block')}\n"

    text = DISPLAY.sub(display, text)
    text = INLINE.sub(lambda match: mathml(match[1], "inline"), text)
    text = LINK.sub(lambda match: f"[{' '.join(match[1].split())}]({match[2]})", text)
    text = NAMES.sub(r"\1 ", text)
    return ROLE.sub(r"`\1`", text)


class Docstrings(griffe.Extension):
    """Loaded by mkdocstrings."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        del kwargs
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

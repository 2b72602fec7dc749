"""What docstrings have of reStructuredText, as Markdown: math, links and roles."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from importlib import import_module

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


def function(name: str, made: Callable[..., object]) -> griffe.Function:
    """What mkdocstrings shows of a function that was made by another one."""
    signature = inspect.signature(made)
    parameters = (
        griffe.Parameter(
            p.name,
            annotation=None if p.annotation is p.empty else str(p.annotation),
            kind=griffe.ParameterKind(p.kind.description),
            default=None if p.default is p.empty else repr(p.default),
        )
        for p in signature.parameters.values()
    )
    returns = signature.return_annotation
    return griffe.Function(
        name,
        parameters=griffe.Parameters(*parameters),
        returns=None if returns is signature.empty else str(returns),
        docstring=griffe.Docstring(inspect.cleandoc(made.__doc__ or ""), lineno=1),
    )


class Docstrings(griffe.Extension):
    """Loaded by mkdocstrings."""

    def on_module(self, *, mod: griffe.Module, **kwargs) -> None:
        """``acos = unary("acos", jnp.arccos)`` is shown with its signature and docstring."""
        del kwargs
        if not mod.path.startswith("instep.ops._"):
            return
        for name, member in list(mod.members.items()):
            if isinstance(member, griffe.Attribute) and not name.startswith("_"):
                made = getattr(import_module(mod.path), name)
                if inspect.isfunction(made):
                    mod.set_member(name, function(name, made))

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        del kwargs
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)

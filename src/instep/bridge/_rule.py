"""Rules: which tensors of a layer are which JAX leaves, by the names of both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ._layout import Layout


Names = Mapping[str, str] | None


@dataclass(frozen=True)
class Link:
    """Tensors of ``nn.Module.state_dict`` and the JAX leaves that hold the same numbers.

    Args:
      torch: names in the ``state_dict``.
      jax: names of leaves of params or buffers; empty: PyTorch has these tensors alone.
      layout: takes the tensors to the leaves and back.
      rule: the rule that made this link, and how it was found.
      optional: the JAX side may lack the leaves.
      inexact: why the two cannot train in step, though they compute the same; "" if they
        can. The way to JAX and back is then not exact either.
    """

    torch: tuple[str, ...]
    jax: tuple[str, ...]
    layout: Layout
    rule: str = ""
    optional: bool = False
    inexact: str = ""


@dataclass(frozen=True)
class Variant:
    """One way in which the JAX side may hold a layer; ``refused`` says why it cannot."""

    links: tuple[Link, ...]
    refused: str = ""


@dataclass(frozen=True)
class Rule:
    """One layer, an ``nn.Module`` and its JAX counterpart.

    Args:
      kind: the function that made it.
      torch: name of the module in the ``state_dict``.
      jax: name of the layer on the JAX side.
      variants: ways in which it may be held; the first whose names are all there holds.
    """

    kind: str
    torch: str
    jax: str
    variants: tuple[Variant, ...]

    def __repr__(self):
        same = self.jax == self.torch
        return f"{self.kind}({self.torch!r}{'' if same else f', {self.jax!r}'})"


def pair(torch: str | Iterable[str], jax: str | Iterable[str], layout: Layout, **kw) -> Link:
    """A link between names relative to the layer."""
    return Link(_tuple(torch), _tuple(jax), layout, **kw)


def layer_rule(
    kind: str, torch: str, jax: str | None, names: Names, variants: Iterable[Variant]
) -> Rule:
    """The rule of a layer from variants whose names are relative to it.

    Raises:
      ValueError: ``names`` renames what no variant has.
    """
    jax = torch if jax is None else jax
    names = {} if names is None else names
    variants = tuple(variants)
    known = {part for variant in variants for part in _parts(variant)}
    if unknown := sorted(names.keys() - known):
        raise ValueError(
            f"{kind} has no leaves called {unknown}, which names renames; it has "
            f"{sorted(known)}."
        )

    def renamed(name: str) -> str:
        return ".".join(names.get(part, part) for part in name.split("."))

    def absolute(link: Link) -> Link:
        return replace(
            link,
            torch=tuple(join(torch, name) for name in link.torch),
            jax=tuple(join(jax, renamed(name)) for name in link.jax),
            rule=kind,
        )

    # A name that now stands for another leaf is no longer its own.
    meant = [v for v in variants if not (_parts(v) - names.keys()) & set(names.values())]
    return Rule(
        kind,
        torch,
        jax,
        tuple(replace(v, links=tuple(absolute(link) for link in v.links)) for v in meant),
    )


def _parts(variant: Variant) -> set[str]:
    return {part for link in variant.links for name in link.jax for part in name.split(".")}


def join(module: str, leaf: str) -> str:
    """``"fc.weight"``; the root module has the empty name."""
    return f"{module}.{leaf}" if module and leaf else module or leaf


def _tuple(names: str | Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)

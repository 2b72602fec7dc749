"""Both sides by name, and which variant of a rule they fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._state import PyTree
from .._trees import named_leaves
from ._linen import Layer
from ._rule import Link, Rule, Variant
from ._weights import Shapes


COLLECTIONS = ("params.", "batch_stats.")  # of Linen's variables


@dataclass(frozen=True)
class Side:
    """The tensors of one side, and the names by which a rule may call them.

    Of a PyTorch module (``side_of``) it is all that matching asks, without PyTorch.
    """

    shapes: Shapes
    lookup: Mapping[str, str]
    tied: frozenset[str] = frozenset()  # those with several names
    layers: tuple[Layer, ...] | None = None  # of a module, in order of registration

    def has(self, name: str) -> bool:
        return name in self.lookup

    def without(self, taken: Iterable[str]) -> Side:
        """What is left when ``taken`` is given away."""
        taken = set(taken)
        shapes = {name: shape for name, shape in self.shapes.items() if name not in taken}
        lookup = {name: real for name, real in self.lookup.items() if real not in taken}
        return replace(self, shapes=shapes, lookup=lookup, tied=self.tied - taken)


@dataclass(frozen=True)
class Sides:
    torch: Side
    jax: Side


def torch_side(torch: Any) -> Side:
    """Of a module, a ``state_dict``, or what ``side_of`` kept of a module.

    Raises:
      TypeError: it is something else.
    """
    if isinstance(torch, Side):
        return torch
    if isinstance(torch, Mapping):
        return Side(_shapes(torch), {name: name for name in torch})
    if not hasattr(torch, "named_parameters"):
        raise TypeError(
            f"the PyTorch side is a {type(torch).__name__}; give an nn.Module or a state_dict."
        )
    from ._layers import side_of

    return side_of(torch)


def tied(lookup: Mapping[str, str]) -> frozenset[str]:
    """The tensors that have several names."""
    return frozenset(name for name, n in Counter(lookup.values()).items() if n > 1)


def jax_side(params: PyTree, buffers: PyTree) -> Side:
    """Leaf names of both trees; a collection prefix may be left out."""
    trees = named_leaves(params), named_leaves(buffers)
    both = sorted(trees[0].keys() & trees[1].keys())
    if both:
        raise ValueError(f"leaves {both} are in params and in buffers. Name them apart.")
    lookup = {}
    for names in trees:
        if all(name.startswith(COLLECTIONS) for name in names):
            lookup |= {name.partition(".")[2]: name for name in names}
    shapes = _shapes(trees[0] | trees[1])
    return Side(shapes, lookup | {name: name for name in shapes})


def choose(rule: Rule, sides: Sides) -> list[Link]:
    """The links of the first variant that fits, under the names that tensors really have.

    If none fits, those of the one that comes nearest, so that a message can name the rest.
    """
    fitting = [v for v in rule.variants if fits(v, sides)]
    if fitting and fitting[0].refused:
        raise ValueError(f"{rule}: {fitting[0].refused}")
    best = fitting[0] if fitting else max(rule.variants, key=lambda v: _near(v, sides))
    return [_real(link, sides) for link in active([best], sides)]


def fits(variant: Variant, sides: Sides) -> bool:
    """Whether every link of which anything is there is there as a whole."""
    links = active([variant], sides)
    return bool(links) and all(_complete(link, sides) for link in links)


def active(variants: Iterable[Variant], sides: Sides) -> list[Link]:
    """The links of which anything is there.

    A tied tensor has several names, and its JAX leaf need not have them all.
    """
    return [
        link
        for variant in variants
        for link in variant.links
        if any(map(sides.jax.has, link.jax))
        or any(
            sides.torch.has(name)
            and not (link.jax and sides.torch.lookup[name] in sides.torch.tied)
            for name in link.torch
        )
    ]


def _complete(link: Link, sides: Sides) -> bool:
    absent = link.optional and not any(map(sides.jax.has, link.jax))
    return all(map(sides.torch.has, link.torch)) and (
        absent or all(map(sides.jax.has, link.jax))
    )


def _near(variant: Variant, sides: Sides) -> int:
    """Names that are there, less those that are not."""
    links = active([variant], sides)
    there = [sides.torch.has(name) for link in links for name in link.torch]
    there += [sides.jax.has(name) for link in links for name in link.jax]
    return sum(1 if has else -1 for has in there)


def _real(link: Link, sides: Sides) -> Link:
    alone = link.optional and not any(map(sides.jax.has, link.jax))
    return replace(
        link,
        torch=tuple(sides.torch.lookup.get(name, name) for name in link.torch),
        jax=() if alone else tuple(sides.jax.lookup.get(name, name) for name in link.jax),
    )


def _shapes(named: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(np.shape(leaf)) for name, leaf in named.items()}

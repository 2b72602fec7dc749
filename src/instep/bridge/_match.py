"""Matching: every tensor of a PyTorch model with its JAX leaves, exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._state import PyTree
from ._auto import auto_rules
from ._rule import Rule
from ._sides import Side, Sides, active, choose, jax_side, torch_side
from ._weights import Shapes, WeightMap


if TYPE_CHECKING:
    from torch import nn

AT_MOST = 20  # problems in one message


def match_weights(
    rules: Sequence[Rule | str] | str,
    torch: nn.Module | Mapping[str, Any] | Side,
    params: PyTree,
    buffers: PyTree = None,
) -> WeightMap:
    """Which tensors of a PyTorch model are which leaves of params and buffers.

    Args:
      rules: one rule per layer, as ``bridge.linear`` and its kin make them; ``"auto"``, or a
        list with ``"auto"`` in it: the remaining layers of the module are matched by their
        kind and name (see ``bridge._auto``).
      torch: an ``nn.Module``, its ``state_dict``, or arrays by ``state_dict`` name. ``"auto"``
        needs the module, or what ``bridge._layers.side_of`` kept of it.
      params, buffers: pytrees of arrays; Linen's may have their collections, ``"params"``
        and ``"batch_stats"``, or not.

    Raises:
      TypeError: ``rules`` or ``torch`` is of another kind.
      ValueError: a tensor of either side is matched by no rule or by more than one, shapes
        do not fit, or a cell cannot hold what PyTorch has.
    """
    automatic, explicit = split_rules(rules)
    sides = Sides(torch_side(torch), jax_side(params, buffers))
    idle = [rule for rule in explicit if not active(rule.variants, sides)]
    links = [link for rule in explicit for link in choose(rule, sides)]
    if automatic:
        if sides.torch.layers is None:
            raise TypeError(
                f'"auto" walks the modules of the PyTorch model; got a '
                f"{type(torch).__name__}. Give match_weights the nn.Module."
            )
        rest = Sides(
            sides.torch.without(name for link in links for name in link.torch),
            sides.jax.without(name for link in links for name in link.jax),
        )
        found = auto_rules(rest)
        links += [link for rule in found for link in choose(rule, rest)]
    weights = WeightMap(tuple(links), sides.torch.shapes, sides.jax.shapes, _aliases(sides))
    problems = [f"{rule} names no tensor of either side" for rule in idle]
    problems += [*_unmatched(weights), *_misfits(weights)]
    if problems:
        raise ValueError(_message(problems, weights, automatic))
    return weights


def split_rules(rules: Any) -> tuple[bool, list[Rule]]:
    """Whether ``"auto"`` is among the rules, and those that are explicit."""
    listed = [rules] if isinstance(rules, str) else rules
    if not isinstance(listed, list | tuple):
        wrong = [rules]
    else:
        wrong = [x for x in listed if not (isinstance(x, Rule) or x == "auto")]
    if wrong:
        raise TypeError(
            f'weights are "auto" or a list of rules, one per layer: [bridge.linear("fc1"), '
            f'bridge.conv("conv1"), ..., "auto"]; got {wrong[0]!r}.'
        )
    return "auto" in listed, [rule for rule in listed if isinstance(rule, Rule)]


def _aliases(sides: Sides) -> dict[str, str]:
    lookup = sides.torch.lookup
    return {name: first for name, first in lookup.items() if name != first}


def _unmatched(weights: WeightMap) -> Iterator[str]:
    for side, shapes, linked in (
        ("PyTorch", weights.torch, [name for link in weights.links for name in link.torch]),
        ("JAX", weights.jax, [name for link in weights.links for name in link.jax]),
    ):
        count = Counter(linked)
        for name, shape in shapes.items():
            if not count[name]:
                yield f"{side} leaf {name!r} has no rule; its shape is {shape}"
        for name, n in count.items():
            if name not in shapes:
                yield f"{side} has no leaf {name!r}, which a rule names"
            elif n > 1:
                yield f"{side} leaf {name!r} has {n} rules"


def _misfits(weights: WeightMap) -> Iterator[str]:
    for link in (link for link in weights.links if link.jax):
        if not (set(link.torch) <= set(weights.torch) and set(link.jax) <= set(weights.jax)):
            continue  # which is a problem of its own
        given = tuple(weights.torch[name] for name in link.torch)
        wanted = tuple(weights.jax[name] for name in link.jax)
        try:
            made = link.layout.to_jax(*(np.empty(shape, np.int8) for shape in given))
            shapes = tuple(leaf.shape for leaf in made)
        except (ValueError, IndexError):
            shapes = None
        if shapes != wanted:
            yield (
                f"{_listed(link.torch, given)} in layout {link.layout.name} is "
                f"{_shape_text(shapes)}, but {_listed(link.jax, wanted)}"
            )


def _listed(names: Sequence[str], shapes: Sequence[Any]) -> str:
    return ", ".join(f"{n!r} {shape}" for n, shape in zip(names, shapes, strict=True))


def _shape_text(shapes: tuple | None) -> str:
    return "impossible" if shapes is None else ", ".join(map(str, shapes))


def _message(problems: list[str], weights: WeightMap, automatic: bool) -> str:
    more = [f"... and {len(problems) - AT_MOST} more"] if len(problems) > AT_MOST else []
    lines = ["the weights of the two sides do not match:"]
    lines += [f"  {problem}" for problem in [*problems[:AT_MOST], *more]]
    lines += [f"  PyTorch has: {_all(weights.torch)}", f"  JAX has: {_all(weights.jax)}"]
    if weights.links:
        lines += ["matched:", str(weights)]
    lines.append(
        "Give every tensor exactly one rule: bridge.linear, conv, batch_norm, ..., tensor or "
        "torch_only."
        + (
            ' Rules stand beside "auto": ["auto", bridge.linear("torch.name", "jax.name")].'
            if automatic
            else ""
        )
    )
    return "\n".join(lines)


def _all(shapes: Shapes) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())

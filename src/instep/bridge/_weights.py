"""Weights across: which PyTorch tensor is which JAX leaf, and in which layout.

A rule is explicit. The layout follows from the kind of layer, never from shapes, so a square
weight is transposed like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._state import PyTree
from .._trees import named_leaves


@dataclass(frozen=True)
class Layout:
    """A change of axes and back. ``to_torch(to_jax(x))`` is ``x``, bit for bit."""

    name: str
    to_jax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Link:
    """One tensor of a ``state_dict`` and one leaf of the JAX params or buffers."""

    torch: str
    jax: str
    layout: Layout
    optional: bool = False  # the JAX side may lack it: then PyTorch's tensor stands alone


Rule = tuple[Link, ...]  # of one layer
Links = tuple[Link, ...]  # of a whole model

SAME = Layout("same layout", lambda w: w, lambda w: w)
LINEAR = Layout("(out, in) -> (in, out)", lambda w: w.T, lambda w: w.T)
CONV = Layout(
    "(out, in, *kernel) -> (*kernel, in, out)",
    lambda w: np.moveaxis(w, (1, 0), (-2, -1)),
    lambda w: np.moveaxis(w, (-2, -1), (1, 0)),
)


def linear(torch: str, jax: str | None = None, *, flattened: tuple[int, ...] = ()) -> Rule:
    """``nn.Linear`` and ``flax.nnx.Linear``: weight (out, in) is kernel (in, out).

    Args:
      torch: name of the module in the ``state_dict``.
      jax: name of the layer on the JAX side; None: the same name.
      flattened: shape ``(C, *spatial)`` of what was flattened before this layer, where
        PyTorch flattened channels first and JAX channels last.
    """
    jax = torch if jax is None else jax
    layout = _flattened(flattened) if flattened else LINEAR
    return (
        Link(_join(torch, "weight"), _join(jax, "kernel"), layout),
        Link(_join(torch, "bias"), _join(jax, "bias"), SAME),
    )


def conv(torch: str, jax: str | None = None) -> Rule:
    """``nn.Conv1d/2d/3d`` and ``flax.nnx.Conv``: OIHW is HWIO. Arguments as for ``linear``."""
    jax = torch if jax is None else jax
    return (
        Link(_join(torch, "weight"), _join(jax, "kernel"), CONV),
        Link(_join(torch, "bias"), _join(jax, "bias"), SAME),
    )


def batch_norm(torch: str, jax: str | None = None) -> Rule:
    """``nn.BatchNorm1d/2d/3d`` and ``flax.nnx.BatchNorm``. Arguments as for ``linear``.

    ``num_batches_tracked`` counts calls and has no effect unless ``momentum=None``; Flax has
    no such variable, and it is then PyTorch's alone.
    """
    jax = torch if jax is None else jax
    names = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    }
    links = (Link(_join(torch, t), _join(jax, j), SAME) for t, j in names.items())
    counter = "num_batches_tracked"
    return *links, Link(_join(torch, counter), _join(jax, counter), SAME, optional=True)


def tensor(torch: str, jax: str | None = None, layout: Layout = SAME) -> Rule:
    """One tensor of the ``state_dict`` and one leaf, in the same layout or a given one."""
    return (Link(torch, torch if jax is None else jax, layout),)


def torch_only(torch: str) -> Rule:
    """A buffer of the PyTorch model that has no counterpart, such as a constant mask."""
    return (Link(torch, torch, SAME, optional=True),)


def _join(module: str, leaf: str) -> str:
    """``"fc.weight"``; the root module has the empty name."""
    return f"{module}.{leaf}" if module else leaf


def match_weights(
    rules: Iterable[Rule], torch: Mapping[str, Any], jax: Mapping[str, Any]
) -> Links:
    """The links that hold between two sets of named arrays.

    A link whose two ends are both absent (the bias of a layer without one) is left out, and
    so is an optional one whose JAX end is absent.

    Args:
      rules: from ``linear``, ``conv``, ``batch_norm``, ``tensor``, ``torch_only``.
      torch: ``state_dict`` names to arrays.
      jax: leaf names of params and buffers to arrays.

    Raises:
      ValueError: a leaf of either side is matched by no rule or by more than one, or the
        shapes of a pair do not fit.
    """
    links = [link for rule in rules for link in rule if link.torch in torch or link.jax in jax]
    both = tuple(link for link in links if not link.optional or link.jax in jax)
    problems = [
        *_unmatched("PyTorch", torch, [link.torch for link in links]),
        *_unmatched("JAX", jax, [link.jax for link in both]),
        *_misfits(both, torch, jax),
    ]
    if problems:
        raise ValueError(
            "the weights of the two sides do not match:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + f"\n  PyTorch has: {_shapes(torch)}\n  JAX has: {_shapes(jax)}\n"
            "Give every tensor exactly one rule: bridge.linear, conv, batch_norm, tensor or "
            "torch_only."
        )
    return both


def weights_to_jax(links: Links, torch: Mapping[str, np.ndarray], like: PyTree) -> PyTree:
    """A tree like ``like`` that holds the PyTorch arrays."""
    named = {link.jax: link.layout.to_jax(torch[link.torch]) for link in links}
    leaves = [named[name] for name in named_leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def weights_to_torch(links: Links, tree: PyTree) -> dict[str, np.ndarray]:
    """The leaves of ``tree`` that have a link, by ``state_dict`` name, in PyTorch's layout."""
    named = named_leaves(tree)
    return {
        link.torch: link.layout.to_torch(np.asarray(named[link.jax]))
        for link in links
        if link.jax in named
    }


def _flattened(shape: tuple[int, ...]) -> Layout:
    """A linear layer after a flatten: features (C, *spatial) become (*spatial, C)."""
    channels, *spatial = shape

    def forward(w_OF):
        w = w_OF.reshape(-1, channels, *spatial)
        return np.moveaxis(w, (1, 0), (-2, -1)).reshape(-1, w_OF.shape[0])

    def back(w_FO):
        w = w_FO.reshape(*spatial, channels, -1)
        return np.moveaxis(w, (-2, -1), (1, 0)).reshape(w_FO.shape[1], -1)

    return Layout(f"(out, {shape} flattened) -> (channels last, out)", forward, back)


def _unmatched(side: str, names: Mapping[str, Any], linked: list[str]) -> list[str]:
    count = Counter(linked)
    return [
        *(f"{side} leaf {name!r} has no rule" for name in names if not count[name]),
        *(f"{side} leaf {name!r} has {n} rules" for name, n in count.items() if n > 1),
        *(
            f"{side} has no leaf {name!r}, which a rule names"
            for name in count
            if name not in names
        ),
    ]


def _misfits(links: Links, torch: Mapping[str, Any], jax: Mapping[str, Any]) -> list[str]:
    problems = []
    for link in links:
        if link.torch not in torch or link.jax not in jax:
            continue
        given, wanted = np.asarray(torch[link.torch]), np.shape(jax[link.jax])
        try:
            shape = link.layout.to_jax(given).shape
        except ValueError:
            shape = None
        if shape != wanted:
            problems.append(
                f"{link.torch!r} {given.shape} in {link.layout.name} is {shape}, but "
                f"{link.jax!r} is {wanted}"
            )
    return problems


def _shapes(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {np.shape(leaf)}" for name, leaf in named.items())

"""Weights across, both ways, and the table of what is what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._state import PyTree
from .._trees import named_leaves
from ._arrays import tensor_to_array
from ._rule import Link


if TYPE_CHECKING:
    from torch import nn

Arrays = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class WeightMap:
    """What ``match_weights`` found; ``print`` it for the table.

    PyTorch: the names and shapes are those of ``nn.Module.state_dict``.

    Args:
      links: one per group of tensors that cross together, in the order of the rules.
      torch, jax: the shapes of both sides, by name.
      tied: further names of tied PyTorch tensors, and the name in ``links``.
    """

    links: tuple[Link, ...] = ()
    torch: Shapes = field(default_factory=dict)
    jax: Shapes = field(default_factory=dict)
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """The JAX name of every PyTorch tensor that has one; several are joined by commas."""
        return {name: ", ".join(x.jax) for x in self.links if x.jax for name in x.torch}

    @property
    def alone(self) -> frozenset[str]:
        """The PyTorch tensors that have no JAX leaf."""
        return frozenset(self.torch) - self.names.keys()

    @property
    def inexact(self) -> tuple[Link, ...]:
        """The links that compute the same but cannot train in step."""
        return tuple(link for link in self.links if link.inexact)

    def __str__(self):
        return _table(self)


def weights_to_jax(
    weights: WeightMap, torch: nn.Module | Mapping[str, Any], like: PyTree
) -> PyTree:
    """A tree like ``like`` that holds copies of the PyTorch weights, as NumPy arrays.

    Args:
      weights: from ``match_weights``.
      torch: an ``nn.Module``, its ``state_dict``, or arrays by ``state_dict`` name. Every dtype
        stays as it is, bfloat16 too.
      like: params, or buffers, as ``match_weights`` saw them; its leaves are not read.

    Raises:
      ValueError: a tensor is missing, or ``like`` has a leaf that the map does not know.
    """
    if not isinstance(torch, Mapping):
        torch = dict([*torch.named_parameters(), *torch.named_buffers()])
    names = list(named_leaves(like))
    wanted = [link for link in weights.links if set(link.jax) & set(names)]
    missing = sorted({n for link in wanted for n in link.torch} - torch.keys())
    unknown = sorted(set(names) - {n for link in wanted for n in link.jax})
    if missing or unknown:
        raise ValueError(
            f"the weights do not fit the map: PyTorch's {missing} are not there and the JAX "
            f"leaves {unknown} have no link. Give the trees that match_weights saw (buffers "
            f"that are not persistent are in the module, not in its state_dict)."
        )
    arrays = {n: tensor_to_array(torch[n]) for link in wanted for n in link.torch}
    named = arrays_to_jax(wanted, arrays)
    leaves = [np.array(named[name], order="C") for name in names]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def weights_to_torch(
    weights: WeightMap, params: PyTree, buffers: PyTree = None
) -> dict[str, np.ndarray]:
    """Copies of the leaves by ``state_dict`` name, in PyTorch's layout.

    Tensors that PyTorch has alone, such as ``num_batches_tracked``, are not among them, tied
    ones are under each of their names. Write them back with::

        tensors = {name: bridge.array_to_tensor(a) for name, a in arrays.items()}
        model.load_state_dict(model.state_dict() | tensors)

    Args:
      weights: from ``match_weights``.
      params, buffers: pytrees of any dtype; either may be absent, and then so are its
        tensors.

    Raises:
      ValueError: only a part of the leaves that form one tensor is there.
    """
    named = named_leaves(params) | named_leaves(buffers)
    for link in weights.links:
        absent = [name for name in link.jax if name not in named]
        if absent and len(absent) < len(link.jax):
            raise ValueError(
                f"leaves {absent} are absent, and PyTorch's {', '.join(link.torch)} is made of "
                f"{', '.join(link.jax)}. Give params and buffers together."
            )
    arrays = arrays_to_torch(weights.links, {n: np.asarray(leaf) for n, leaf in named.items()})
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    return arrays | {
        name: arrays[first] for name, first in weights.tied.items() if first in arrays
    }


def arrays_to_jax(links: tuple[Link, ...] | list[Link], torch: Arrays) -> dict[str, Any]:
    """Named arrays across; a link whose tensors are not all there is passed over."""
    named: dict[str, Any] = {}
    for link in links:
        if link.jax and all(name in torch for name in link.torch):
            leaves = link.layout.to_jax(*(torch[name] for name in link.torch))
            named |= zip(link.jax, leaves, strict=True)
    return named


def arrays_to_torch(links: tuple[Link, ...] | list[Link], named: Arrays) -> dict[str, Any]:
    """Named arrays back; a link whose leaves are not all there is passed over."""
    arrays: dict[str, Any] = {}
    for link in links:
        if link.jax and all(name in named for name in link.jax):
            tensors = link.layout.to_torch(*(named[name] for name in link.jax))
            arrays |= zip(link.torch, tensors, strict=True)
    return arrays


def _table(weights: WeightMap) -> str:
    rows = [("rule", "PyTorch", "JAX", "layout")]
    for link in weights.links:
        note = " [not exact]" if link.inexact else ""
        rows.append(
            (
                link.rule,
                _side(link.torch, weights.torch),
                _side(link.jax, weights.jax) if link.jax else "-",
                link.layout.name + note if link.jax else "PyTorch alone",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    head, *body = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    lines = [head, "  ".join("-" * width for width in widths), *body]
    reasons = dict.fromkeys(link.inexact for link in weights.inexact)
    return "\n".join([*lines, *(f"[not exact] {reason}" for reason in reasons)])


def _side(names: tuple[str, ...], shapes: Shapes) -> str:
    """``"fc.weight (2, 3)"``, or ``"attn.{query,key,value}.kernel, each (4, 2, 2)"``."""
    sizes = [shapes.get(name, "absent") for name in names]
    together = braced(names)
    if together is None or len(set(sizes)) > 1:
        return ", ".join(f"{n} {size}" for n, size in zip(names, sizes, strict=True))
    return f"{together}{', each' if len(names) > 1 else ''} {sizes[0]}"


def braced(names: tuple[str, ...]) -> str | None:
    """``"attn.{query,key,value}.kernel"`` of names that differ in one part; None if not so."""
    parts = [name.split(".") for name in names]
    if len(names) == 1:
        return names[0]
    varying = [i for i, column in enumerate(zip(*parts, strict=False)) if len(set(column)) > 1]
    if len({len(p) for p in parts}) > 1 or len(varying) != 1:
        return None
    (i,) = varying
    middle = "{" + ",".join(p[i] for p in parts) + "}"
    return ".".join([*parts[0][:i], middle, *parts[0][i + 1 :]])

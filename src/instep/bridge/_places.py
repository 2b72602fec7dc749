"""Where the parameters of a PyTorch optimizer stand on the JAX side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from .._state import PyTree
from .._trees import named_leaves
from ._arrays import tensor_to_array
from ._layout import SAME
from ._rule import Link
from ._weights import WeightMap


@dataclass(frozen=True)
class Places:
    """The parameters of each group by name, and the links from them to JAX leaves.

    Args:
      groups: for each parameter group the parameters, by name, in PyTorch's order.
      links: from those names to leaves of ``params``.
      params: the JAX parameters, or a tree like them.
      frozen: those of the groups that have ``requires_grad=False``: PyTorch's optimizer
        passes over them.
    """

    groups: tuple[dict[str, torch.Tensor], ...]
    links: tuple[Link, ...]
    params: PyTree
    frozen: frozenset[str] = frozenset()

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """All parameters by name."""
        return {name: p for group in self.groups for name, p in group.items()}

    def is_trained(self, group: int) -> bool:
        """Whether a group has a parameter that is not frozen."""
        return not self.groups[group].keys() <= self.frozen

    def mask(self, group: int) -> PyTree:
        """A tree like ``params``: True for the leaves that a group trains.

        Of a group that trains none, for all its leaves.
        """
        return self._mask(self._trained(group) or set(self.groups[group]))

    def left_over(self) -> PyTree:
        """A tree like ``params``: True for the leaves that are in no ``mask``."""
        masks = [self.mask(group) for group in range(len(self.groups))]
        return jax.tree.map(lambda *inside: not any(inside), *masks)

    def _trained(self, group: int) -> set[str]:
        return self.groups[group].keys() - self.frozen

    def _mask(self, names: set[str]) -> PyTree:
        inside = set()
        for link in self.links:
            found = names & set(link.torch)
            if found and found != set(link.torch):
                raise ValueError(
                    f"{', '.join(link.torch)} form {', '.join(link.jax)} together, but only "
                    f"{sorted(found)} are trained by one parameter group. Train or freeze "
                    f"them together, in one group."
                )
            inside |= set(link.jax) if found else set()
        flags = [name in inside for name in named_leaves(self.params)]
        return jax.tree.unflatten(jax.tree.structure(self.params), flags)


def places(
    optimizer: torch.optim.Optimizer,
    model: nn.Module | None = None,
    weights: WeightMap | None = None,
    params: PyTree = None,
) -> Places:
    """Find them: by the names in ``model`` or in the groups, and by ``weights``.

    Without ``weights`` the JAX parameters are a dict by name in PyTorch's layouts. Without
    names either, they are numbered ``"0", "1", ...`` as in ``optimizer.state_dict()``.

    Raises:
      ValueError: a parameter is not in ``model``; or of ``weights`` and ``params`` only one is
        given, or they lack a parameter.
    """
    groups = _named_groups(optimizer, model)
    named = {name: p for group in groups for name, p in group.items()}
    frozen = frozenset(name for name, p in named.items() if not p.requires_grad)
    if isinstance(optimizer, torch.optim.LBFGS):
        frozen = frozenset()  # one vector for all; an absent gradient counts as zeros
    if (weights is None) != (params is None):
        raise ValueError("weights and params belong together: give both or none.")
    if weights is None:
        tensors: dict[str, Any] = dict(named if model is None else model.named_parameters())
        links = tuple(Link((name,), (name,), SAME) for name in tensors)
        return Places(groups, links, {n: _like(p) for n, p in tensors.items()}, frozen)
    leaves = named_leaves(params)
    links = tuple(x for x in weights.links if x.jax and set(x.jax) <= leaves.keys())
    missing = sorted(named.keys() - {name for link in links for name in link.torch})
    if missing:
        raise ValueError(
            f"the optimizer trains {missing}, which have no leaf in params by this map. Give "
            f"the params that match_weights saw."
        )
    return Places(groups, links, params, frozen)


def _like(p: torch.Tensor) -> np.ndarray:
    """Zeros of the shape and dtype of a parameter, which take no memory."""
    dtype = tensor_to_array(torch.empty(0, dtype=p.dtype)).dtype
    return np.broadcast_to(np.zeros((), dtype), tuple(p.shape))


def _named_groups(optimizer, model: nn.Module | None) -> tuple[dict[str, torch.Tensor], ...]:
    names = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    made, number = [], 0
    for i, group in enumerate(optimizer.param_groups):
        given = group.get("param_names") or [None] * len(group["params"])
        named = {}
        for p, own in zip(group["params"], given, strict=True):
            if model is not None and id(p) not in names:
                raise ValueError(
                    f"group {i} has a tensor of shape {tuple(p.shape)} that is not a "
                    f"parameter of the model. Give the model that the optimizer trains."
                )
            named[names.get(id(p)) or own or str(number)] = p
            number += 1
        made.append(named)
    return tuple(made)

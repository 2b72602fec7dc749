"""Single calls of aten's operators, in the form of the calls of PyTorch's own database."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.utils import _pytree as pytree

from aten_rows import Row, rows
from instep.bridge.lower._compile import compile_graph
from instep.bridge.lower._program import Program
from ops_cases import own


class AtenCase(NamedTuple):
    """One call of one operator, which no other stands for; see ``ops_cases.Case``."""

    op: torch._ops.OpOverload
    tensors: tuple[torch.Tensor, ...]
    leaves: list[Any]  # of the arguments; None in the places of the tensors
    places: list[int]
    spec: Any
    first_only: bool  # the other results are what PyTorch keeps for its own backward pass

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> list[Any]:
        """What it returns for these, flat."""
        args, kwargs = self._filled(tensors)
        made = pytree.tree_leaves(self.op(*args, **kwargs))
        return made[:1] if self.first_only else made

    def fresh(self) -> tuple[torch.Tensor, ...]:
        """The tensors as leaves that no other run has."""
        return tuple(map(own, self.tensors))

    def program(self) -> Program:
        """A graph of this operator alone, lowered."""
        graph = fx.Graph()
        inputs = [graph.placeholder(f"input_{i}") for i in range(len(self.tensors))]
        for node, x in zip(inputs, self.tensors, strict=True):
            node.meta["val"] = x
        args, kwargs = self._filled(inputs)
        made = graph.call_function(self.op, tuple(args), dict(kwargs))
        args, kwargs = self._filled(self.fresh())
        made.meta["val"] = self.op(*args, **kwargs)
        first = graph.call_function(operator.getitem, (made, 0)) if self.first_only else made
        graph.output(first)
        return compile_graph(fx.GraphModule({}, graph))

    def _filled(self, tensors: Any) -> tuple[Any, Any]:
        leaves = list(self.leaves)
        for i, x in zip(self.places, tensors, strict=True):
            leaves[i] = x
        return pytree.tree_unflatten(leaves, self.spec)


def aten_cases() -> dict[str, AtenCase]:
    """All of ``rows``, by the operator's full name."""
    return {name: _case(name, row) for name, row in rows().items()}


def _case(name: str, row: Row) -> AtenCase:
    packet, _, overload = name.partition(".")
    op = getattr(getattr(torch.ops.aten, packet), overload or "default")
    leaves, spec = pytree.tree_flatten((row.args, dict(row.named)))
    places = [i for i, x in enumerate(leaves) if torch.is_tensor(x)]
    tensors = tuple(leaves[i] for i in places)
    return AtenCase(op, tensors, leaves, places, spec, row.first_only)

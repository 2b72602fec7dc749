"""The operators of PyTorch's own database, as graphs that a rule of ours can run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree


class Case(NamedTuple):
    """One call of an operator: a function of its tensors alone."""

    op: str
    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]

    def graph(self) -> fx.GraphModule:
        """The call as PyTorch's operators, composite ones kept."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what PyTorch deprecates
            return make_fx(self.function, pre_dispatch=True)(*self.tensors)


def entries() -> list[str]:
    """The names of the database's entries, as ``name`` or ``name.variant``, in order."""
    return [_name(info) for info in op_db if info.supported_dtypes("cpu")]


def cases(
    entry: str, at_most: int | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[Case]:
    """The calls that the database makes of one entry, with the same numbers every time.

    Args:
      entry: of ``entries()``.
      at_most: so many, evenly spaced.
      dtype: or another one, where the operator does not take it.
    """
    info = next(info for info in op_db if _name(info) == entry)
    if dtype not in info.supported_dtypes("cpu"):
        dtype = min(info.supported_dtypes("cpu"), key=str)
    differentiable = dtype.is_floating_point and info.supports_autograd
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        samples = list(info.sample_inputs("cpu", dtype, requires_grad=differentiable))
    step = max(1, -(-len(samples) // (at_most or len(samples) or 1)))
    for sample in samples[::step]:
        yield _case(entry, info.op, (sample.input, sample.args, sample.kwargs))


def _name(info) -> str:
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def _own(x: torch.Tensor) -> torch.Tensor:
    """A leaf that no other call has."""
    return x.detach().clone().requires_grad_(x.requires_grad)


def _case(entry, op, given) -> Case:
    leaves, spec = pytree.tree_flatten(given)
    leaves = [_own(x) if torch.is_tensor(x) else x for x in leaves]
    places = [i for i, x in enumerate(leaves) if torch.is_tensor(x)]

    def function(*tensors):
        filled = list(leaves)
        for i, x in zip(places, tensors, strict=True):
            filled[i] = x
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        return op(first, *args, **kwargs)

    return Case(entry, function, tuple(leaves[i] for i in places))

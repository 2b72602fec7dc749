"""The operators of PyTorch's own database, as programs of ours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.export.graph_signature import OutputKind
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from instep._errors import LoweringError
from instep.bridge import tensor_to_array
from instep.bridge.lower._compile import compile_graph
from instep.bridge.lower._export import export
from instep.bridge.lower._program import Program


class Case(NamedTuple):
    """One call of an operator: a function of its tensors alone."""

    op: str
    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]

    def __call__(self, tensors: tuple[torch.Tensor, ...]) -> list[Any]:
        """What it returns for these, flat; warnings of what PyTorch deprecates are its own."""
        with _quiet():
            return pytree.tree_leaves(self.function(*tensors))

    def fresh(self) -> tuple[torch.Tensor, ...]:
        """The tensors as leaves that no other run has."""
        return tuple(map(own, self.tensors))

    def graph(self) -> fx.GraphModule:
        """The call as PyTorch's operators, composite ones kept."""
        with _quiet():
            return make_fx(self.function, pre_dispatch=True)(*self.fresh())

    def program(self) -> Program:
        """The call as a program of these tensors.

        A graph with operators that have no rule is made again by ``export``, which writes out
        what is done in place and takes apart what is made of other operators.

        Raises:
          LoweringError: there is no rule for one of them, or no graph.
        """
        if any(x.layout is not torch.strided for x in self.tensors):
            raise LoweringError("a sparse tensor")
        if not all(map(_whole, self.fresh())):
            return self._exported()  # which knows where in its memory a tensor lies
        try:
            graph = self.graph()
        except Exception:  # PyTorch cannot trace it: export says what is wrong
            return self._exported()
        with contextlib.suppress(LoweringError):
            return compile_graph(graph)
        return self._exported()

    def _exported(self) -> Program:
        with _quiet():
            exported = export(_Alone(self), _call, ((self.fresh(),), {}), False)
        program = compile_graph(exported.graph_module, exported.captured.functions)
        outputs = zip(program.outputs, exported.outputs, strict=True)
        returned = [x for x, (kind, _) in outputs if kind is OutputKind.USER_OUTPUT]
        places = {number: name for name, _, number in exported.inputs}
        names = tuple(places.get(i, f"unused_{i}") for i in range(len(self.tensors)))
        constants = {k: tensor_to_array(x) for k, x in exported.constants.items()}
        constants |= program.constants
        return Program(names, program.calls, returned, constants, program.float)


class _Alone(nn.Module):
    def __init__(self, case: Case):
        super().__init__()
        self.case = case


def _call(module: nn.Module, tensors: tuple[torch.Tensor, ...]) -> Any:
    return module.case.function(*tensors)


def entries() -> list[str]:
    """The names of the database's entries, as ``name`` or ``name.variant``, in order."""
    names = [_name(info) for info in op_db]
    assert len(set(names)) == len(names), "two entries of one name"
    return names


def cases(
    entry: str, at_most: int | None = None, dtype: torch.dtype = torch.float64
) -> Iterator[Case]:
    """The calls that the database makes of one entry, with the same numbers every time.

    Args:
      entry: of ``entries()``.
      at_most: so many, evenly spaced; 1: the first that has a gradient.
      dtype: or another one, where the operator does not take it.

    Yields:
      Nothing for an operator without a kernel for the CPU.
    """
    info = next(info for info in op_db if _name(info) == entry)
    if not info.supported_dtypes("cpu"):
        return
    if dtype not in info.supported_dtypes("cpu"):
        dtype = min(info.supported_dtypes("cpu"), key=str)
    differentiable = dtype.is_floating_point and info.supports_autograd
    with torch.random.fork_rng(), _quiet():
        torch.manual_seed(0)
        samples = list(info.sample_inputs("cpu", dtype, requires_grad=differentiable))
    if at_most == 1:
        samples = [next(filter(_moves, samples), *samples[:1])] if samples else []
    step = max(1, -(-len(samples) // (at_most or len(samples) or 1)))
    for sample in samples[::step]:
        made = sample.output_process_fn_grad  # of singular vectors: all but the phase
        yield _case(entry, info.op, made, (sample.input, sample.args, sample.kwargs))


def _name(info) -> str:
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def _moves(sample) -> bool:
    """Whether anything in it has a gradient that is not empty."""
    leaves = pytree.tree_leaves((sample.input, sample.args, sample.kwargs))
    return any(torch.is_tensor(x) and x.requires_grad and x.numel() for x in leaves)


def _whole(x: torch.Tensor) -> bool:
    return x.untyped_storage().nbytes() == x.nbytes


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def own(x: torch.Tensor) -> torch.Tensor:
    """A leaf that no other call has; a part of another tensor with what surrounds it."""
    made = x.detach().clone()
    if (
        x.layout is torch.strided
        and x.untyped_storage().nbytes() > x.numel() * x.element_size()
    ):
        memory = x.detach().untyped_storage().clone()
        made = torch.empty(0, dtype=x.dtype)
        made.set_(memory, x.storage_offset(), x.shape, x.stride())
    return made.requires_grad_(x.requires_grad)


def _case(entry, op, made, given) -> Case:
    leaves, spec = pytree.tree_flatten(given)
    leaves = [own(x) if torch.is_tensor(x) else x for x in leaves]
    places = [i for i, x in enumerate(leaves) if torch.is_tensor(x)]

    def function(*tensors):
        filled = list(leaves)
        for i, x in zip(places, tensors, strict=True):
            filled[i] = x
        first, args, kwargs = pytree.tree_unflatten(filled, spec)
        return made(op(first, *args, **kwargs))

    return Case(entry, function, tuple(leaves[i] for i in places))

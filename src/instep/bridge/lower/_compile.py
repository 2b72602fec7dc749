"""From an FX graph of PyTorch's operators to a ``Program`` that knows nothing of PyTorch."""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from torch import fx

from ..._errors import LoweringError
from .._arrays import tensor_to_array
from ._program import Call, Made, Program, Ref
from ._regions import Path as Regions, regions_of
from ._remat import in_regions
from ._table import Rule, rule_of


# What a graph calls on sizes: Python's own functions, and PyTorch's names of them.
ON_SIZES: dict[Any, Callable[..., Any]] = {
    torch.sym_max: max,
    torch.sym_min: min,
    torch.sym_int: int,
    torch.sym_float: float,
    torch.sym_not: operator.not_,
    torch.sym_sum: sum,
}
# Facts about sizes and dtypes that export noted; a Program checks all of its shapes anyway.
NOTES = (
    "_assert_scalar",
    "_assert_tensor_metadata",
    "_assert_async",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
NOT_OF_JAX = ("device", "layout", "pin_memory", "memory_format", "non_blocking")


Calls = Mapping[str, Callable[..., Any]]  # the JAX functions of instep::call


def compile_graph(
    graph_module: fx.GraphModule, calls: Calls | None = None, redrawn: Collection[int] = ()
) -> Program:
    """The operators of ``graph_module`` with the rule of each, to be run by ``run``.

    Args:
      graph_module: functional, of ATen operators.
      calls: what ``Captured`` holds.
      redrawn: regions that PyTorch computes again with other draws.

    Raises:
      LoweringError: operators without a rule; all of them are listed. Or one that draws in
        such a region.
    """
    compiler = _Compiler(calls or {}, redrawn)
    program = compiler.program(graph_module)
    if compiler.missing:
        raise LoweringError(_unknown(compiler.missing))
    return program


class _Compiler:
    """Numbers the random operators of a graph and of the graphs inside it."""

    def __init__(self, calls: Calls, redrawn: Collection[int]):
        self._calls, self._redrawn = calls, redrawn
        self._draws = itertools.count()
        self.missing: list[fx.Node] = []

    def program(self, graph_module: fx.GraphModule) -> Program:
        constants, calls, inputs, outputs = {}, [], [], None
        regions = regions_of(graph_module)
        for node in graph_module.graph.nodes:
            if node.op == "placeholder":
                inputs.append(node.name)
            elif node.op == "get_attr":
                value = operator.attrgetter(node.target)(graph_module)
                if torch.is_tensor(value):
                    constants[node.name] = tensor_to_array(value)
            elif node.op == "call_function" and not _is_note(node):
                rule = _rule(node, self._calls)
                if rule is None:
                    self.missing.append(node)
                else:
                    self._check_draws(node, rule, regions[node])
                    calls.append((self._call(node, rule, graph_module), regions[node]))
            elif node.op == "output":
                outputs = self._torch_free(node.args[0], graph_module)
        default = dtype_to_numpy(torch.get_default_dtype())
        return Program(tuple(inputs), in_regions(calls, outputs), outputs, constants, default)

    def _call(self, node: fx.Node, rule: Rule, graph_module: fx.GraphModule) -> Call:
        args, kwargs = node.args, dict(node.kwargs)
        if isinstance(node.target, torch._ops.OpOverload):
            _refuse_strides(node)
            args, kwargs = _by_schema(node.target, args, kwargs)
        return Call(
            name=node.name,
            rule=rule.function,
            args=tuple(self._torch_free(x, graph_module) for x in args),
            kwargs={k: self._torch_free(v, graph_module) for k, v in kwargs.items()},
            made=_checked(node),
            op=str(node.target),
            where=where_of(node),
            draws=next(self._draws) if rule.draws else None,
        )

    def _check_draws(self, node: fx.Node, rule: Rule, regions: Regions) -> None:
        if rule.draws and any(number in self._redrawn for number in regions):
            raise LoweringError(
                f"{node.target} draws inside of torch.utils.checkpoint with "
                f"preserve_rng_state=False ({where_of(node)}): PyTorch computes it again with "
                f"other numbers, and its gradient is of neither. Leave preserve_rng_state True."
            )

    def _torch_free(self, tree: Any, graph_module: fx.GraphModule) -> Any:
        """Nodes become Refs, dtypes those of NumPy, graphs Programs."""
        if isinstance(tree, fx.Node):
            if tree.op == "get_attr":
                value = operator.attrgetter(str(tree.target))(graph_module)
                if isinstance(value, fx.GraphModule):
                    return self.program(value)
            return Ref(tree.name)
        if isinstance(tree, tuple | list):
            kind = tuple if isinstance(tree, tuple) else list
            return kind(self._torch_free(x, graph_module) for x in tree)
        if isinstance(tree, dict):
            return {k: self._torch_free(v, graph_module) for k, v in tree.items()}
        if isinstance(tree, torch.dtype):
            return dtype_to_numpy(tree)
        if isinstance(tree, torch.device | torch.layout | torch.memory_format):
            return None
        return tensor_to_array(tree) if torch.is_tensor(tree) else tree


def dtype_to_numpy(dtype: torch.dtype) -> np.dtype:
    """The dtype of the same name.

    Raises:
      LoweringError: JAX has none.
    """
    if dtype is torch.complex32:
        raise LoweringError(f"{dtype}: JAX has complex64 and complex128.")
    return jnp.dtype(str(dtype).removeprefix("torch."))


def where_of(node: fx.Node) -> str:
    """Module path and source line, as far as they are known."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path.removeprefix("module").lstrip(".") for path, _ in stack.values()]
    trace = re.findall(r'File "([^<"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    found = [paths[-1]] if paths and paths[-1] else []
    if trace:
        file, line = trace[-1]
        found.append(f"{Path(file).name}:{line}")
    return ", ".join(found) or "at the top of the forward pass"


def _rule(node: fx.Node, calls: Calls) -> Rule | None:
    target: Any = node.target
    if getattr(target, "namespace", "") == "instep":
        return Rule(lambda name, tensors: calls[name](tensors))
    if isinstance(target, torch._ops.OpOverload):
        namespace, _, name = target._schema.name.partition("::")
        return rule_of(namespace, name, target._overloadname)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return rule_of("higher_order", target.name(), "default")
    if target in ON_SIZES:
        return Rule(ON_SIZES[target])
    if getattr(target, "__module__", "") in ("_operator", "math"):
        return Rule(target)
    return None


def _is_note(node: fx.Node) -> bool:
    return getattr(node.target, "_opname", "") in NOTES


def _refuse_strides(node: fx.Node) -> None:
    """JAX has no strides: those of ``as_strided`` are read as of all memory in order."""
    if getattr(node.target, "_opname", "").startswith("as_strided"):
        given: Any = node.args[0]
        x = given.meta["val"]
        whole = x.untyped_storage().nbytes() == x.numel() * x.element_size()
        if not (x.is_contiguous() and whole):
            raise LoweringError(
                f"{node.target} of a tensor that is not contiguous, or a part of another "
                f"({where_of(node)}). Call .clone(memory_format=torch.contiguous_format) "
                f"before it, or write it with select, narrow or unfold."
            )


def _by_schema(op: torch._ops.OpOverload, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """All arguments in the order of the schema, defaults filled in; by name, if only so.

    What says where a tensor lies (device, layout, ...) is left out.
    """
    given = dict(zip((a.name for a in op._schema.arguments), args, strict=False)) | kwargs
    positional, by_name = [], {}
    for a in op._schema.arguments:
        if a.name in NOT_OF_JAX or a.name == "generator":
            continue
        value = given.get(a.name, a.default_value)
        if a.kwarg_only:
            by_name[a.name] = value
        else:
            positional.append(value)
    return tuple(positional), by_name


def _checked(node: fx.Node) -> Any:
    """What the rule must make, where PyTorch's shape functions are right about its kernels."""
    made, name = _made(node.meta.get("val")), getattr(node.target, "_opname", "")
    if name == "multilabel_margin_loss":  # one example without a batch: [1], its kernel []
        return None
    if "batch_norm" in name and isinstance(made, list):
        # Statistics for the backward pass: in the dtype of the input, those of the kernel in
        # that of the weight, which under autocast is another.
        return [made[0], None, None, *made[3:]] if len(made) > 3 else made
    return made


def _made(value: Any) -> Any:
    if torch.is_tensor(value):
        shape = tuple(n if isinstance(n, int) else None for n in value.shape)
        return Made(shape, dtype_to_numpy(value.dtype))
    if isinstance(value, tuple | list):
        return [_made(x) for x in value]
    return None


def _unknown(nodes: list[fx.Node]) -> str:
    return (
        f"no JAX rule for {', '.join(_counted(nodes))}. Write the function in JAX and register "
        f"it: instep.bridge.register({str(nodes[0].target).removesuffix('.default')!r}, "
        f"function)."
    )


def _counted(nodes: list[fx.Node]) -> Iterator[str]:
    """Each operator once: its name, where it is first called, and how often."""
    by_op: dict[str, list[fx.Node]] = {}
    for node in nodes:
        by_op.setdefault(str(node.target), []).append(node)
    for op, calls in by_op.items():
        times = f", {len(calls)} times" if len(calls) > 1 else ""
        yield f"{op} ({where_of(calls[0])}{times})"

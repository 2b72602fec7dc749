"""Where gradients flow in an exported graph, and where PyTorch stops them."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from ..._errors import LoweringError
from ._compile import where_of


aten = torch.ops.aten
SET_GRAD = torch.ops.higher_order.wrap_with_set_grad_enabled
# They look at a tensor for its shape and dtype alone, or cut it off.
STOPS = (
    *("detach", "detach_copy", "sym_size", "sym_numel", "bernoulli"),
    *("zeros_like", "ones_like", "full_like", "empty_like"),
    *("rand_like", "randn_like", "randint_like"),
    *("new_zeros", "new_ones", "new_full", "new_empty", "new_empty_strided"),
)


def stop_gradients(graph_module: fx.GraphModule, flowing: Iterable[str]) -> None:
    """Detach what enters a ``torch.no_grad()`` block, so that the block can be inlined.

    Args:
      graph_module: as ``torch.export.export`` returns it; changed in place.
      flowing: names of the placeholders that are differentiated.

    Raises:
      LoweringError: a block without gradients writes into a tensor that has one.
    """
    _walk(graph_module, set(flowing), enabled=True)


def reached(graph_module: fx.GraphModule, output: fx.Node) -> set[str]:
    """The placeholders that ``output`` has a gradient for; the others' is None in PyTorch."""
    seen: set[fx.Node] = set()
    waiting = [output]
    while waiting:
        node = waiting.pop()
        if node in seen or not _carries(node):
            continue
        seen.add(node)
        waiting.extend(node.all_input_nodes)
    return {node.name for node in seen if node.op == "placeholder"}


def _walk(graph_module: fx.GraphModule, flowing: set[str], enabled: bool) -> list[bool]:
    """Returns which outputs carry a gradient."""
    flows = set()
    for node in list(graph_module.graph.nodes):
        if node.op == "placeholder" and node.name in flowing:
            flows.add(node)
        elif node.op == "call_function":
            if node.target is aten.detach.default and node.args[0] in flows:
                _refuse_writes(node)
            if _inside(node, graph_module, flows, enabled):
                flows.add(node)
        elif node.op == "output":
            outputs = node.args[0] if isinstance(node.args[0], tuple | list) else [node.args[0]]
            carried = [x in flows for x in outputs]
            graph_module.recompile()
            return carried
    raise AssertionError("a graph without an output")


def _inside(node: fx.Node, graph_module: fx.GraphModule, flows: set, enabled: bool) -> bool:
    """Whether the result of ``node`` carries a gradient; blocks inside it are rewritten."""
    graphs = [x for x in node.args if isinstance(x, fx.Node) and _graph(x, graph_module)]
    if not graphs:
        return any(x in flows for x in node.all_input_nodes) and _carries(node)
    carries = False
    for one in graphs:
        inner = _graph(one, graph_module)
        assert inner is not None
        names = [n.name for n in inner.graph.nodes if n.op == "placeholder"]
        given = _operands(node)
        flowing = {name for name, x in zip(names, given, strict=True) if x in flows}
        sets = node.target is SET_GRAD
        if sets and not node.args[0]:
            _detach_inputs(inner, flowing)
            flowing = set()
        elif sets and not enabled and flowing:
            raise LoweringError(
                f"torch.enable_grad() inside torch.no_grad() ({where_of(node)}). Compute what "
                f"needs a gradient outside of the block."
            )
        carries |= any(_walk(inner, flowing, (enabled and not sets) or bool(node.args[0])))
    return carries


def _detach_inputs(inner: fx.GraphModule, flowing: set[str]) -> None:
    for node in list(inner.graph.nodes):
        if node.op == "placeholder" and node.name in flowing:
            with inner.graph.inserting_after(node):
                detached = inner.graph.call_function(aten.detach.default, (node,))
            detached.meta = {k: v for k, v in node.meta.items() if k == "val"}
            node.replace_all_uses_with(
                detached, delete_user_cb=lambda n, d=detached: n is not d
            )
            _refuse_writes(detached)


def _refuse_writes(alias: fx.Node) -> None:
    """To this tensor or a view of it."""
    for user in alias.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None:
            continue
        for a, x in zip(schema.arguments, user.args, strict=False):
            if x is alias and a.alias_info is not None:
                if a.alias_info.is_write:
                    _refuse_max_norm(user)
                    raise LoweringError(
                        f"{user.target} writes into a tensor that has a gradient, unseen by "
                        f"PyTorch's backward pass ({where_of(user)}), which would be that of "
                        f"the old value. Make a new tensor instead of writing in place."
                    )
                _refuse_writes(user)


def _refuse_max_norm(node: fx.Node) -> None:
    if node.target is aten.embedding_renorm_.default:
        raise LoweringError(
            f"max_norm of an embedding shortens rows of its parameter in the forward pass "
            f"({where_of(node)}), and a pure step takes its parameters from the optimizer "
            f"alone. Leave max_norm out, and shorten the rows before each step in a loop of "
            f"your own: params[name] = instep.ops.embedding_renorm(params[name], indices, "
            f"max_norm)."
        )


def _operands(node: fx.Node) -> list[Any]:
    """What the graphs that ``node`` holds are called with."""
    last = max(
        i for i, x in enumerate(node.args) if isinstance(x, fx.Node) and x.op == "get_attr"
    )
    rest = list(node.args[last + 1 :])
    flat = rest[0] if len(rest) == 1 and isinstance(rest[0], tuple | list) else rest
    return list(flat)


def _graph(node: fx.Node, graph_module: fx.GraphModule) -> fx.GraphModule | None:
    if node.op != "get_attr":
        return None
    value = operator.attrgetter(str(node.target))(graph_module)
    return value if isinstance(value, fx.GraphModule) else None


def _carries(node: fx.Node) -> bool:
    """Whether a result of this kind can have a gradient."""
    if node.op == "call_function" and getattr(node.target, "_opname", "") in STOPS:
        return False
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    return any(
        x is None or (torch.is_tensor(x) and (x.is_floating_point() or x.is_complex()))
        for x in values
    )

"""``torch.export``, asked so that nothing is lost: one functional graph."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ... import _errors
from ..._errors import LoweringError
from .._computed import computed, deep_copy
from ._capture import Captured, Rewriting, capturing
from ._compile import where_of
from ._gradients import reached, stop_gradients
from ._regions import regions_of
from ._structure import replaced, take_apart
from ._table import rule_of


PREFIX = "module."


@dataclass(frozen=True)
class Exported:
    """A functional graph, and what goes in and comes out of it."""

    graph_module: fx.GraphModule
    captured: Captured
    inputs: list[tuple[str, InputKind, str | int]]  # placeholder, kind, name or number
    constants: dict[str, torch.Tensor]  # by placeholder
    outputs: list[tuple[OutputKind, str | None]]  # kind, name of the buffer
    structure: Any  # of what the module returns
    reached: frozenset[str]  # placeholders that have a gradient


def export(
    module: nn.Module,
    call: Callable[..., Any],
    example: tuple[tuple, dict[str, Any]],
    dynamic_batch: bool,
    remat: str | Sequence[str] = (),
) -> Exported:
    """Trace ``call(module, *args, **kwargs)``.

    Args:
      module: its parameters and buffers become inputs; not changed.
      call: the forward pass.
      example: ``(args, kwargs)``; the numbers in its tensors are not looked at.
      dynamic_batch: leave the size of the first axis open, in every tensor where it is that of
        the first tensor.
      remat: see ``lower``.

    Raises:
      LoweringError: PyTorch cannot trace it, or something would be lost.
    """
    with capturing() as captured, warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*_flat_weights.*were assigned during export"
        )
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        warnings.filterwarnings("ignore", message="The .grad attribute")  # in torch.cond
        assigned = "|".join(re.escape(path) for path, _ in computed(module))
        warnings.filterwarnings(
            "ignore",
            rf"The tensor attributes? (self\.module\.({assigned})(, )?)+ w\w+ assigned",
        )
        tensors, structure = take_apart(example, torch.is_tensor)

        structures: list[Any] = []
        regions = captured.regions

        def forward(module: nn.Module, tensors: Sequence[torch.Tensor]) -> tuple:
            args, kwargs = replaced(structure, example, tensors)
            before = dict(module.named_buffers())
            rewriting = Rewriting(captured)
            with rewriting, regions.whole():
                made = call(module, *args, **kwargs)
            _write_assigned(module, before)
            leaves, made_of = take_apart(made, torch.is_tensor)
            structures.append(made_of)
            return tuple(map(rewriting.overflow.marked, leaves))

        root = _Root(deep_copy(module, module), forward)
        shapes = {"tensors": _dynamic(tensors)} if dynamic_batch else None
        with regions.of_modules(root.module, remat):
            program = _traced(root, tuple(tensors), shapes)
        for name, value in program.constants.items():
            _check_constant(value, name)
        stop_gradients(program.graph_module, _differentiated(program, root))
        _refuse_unknown_sizes(program.graph_module)
        program = _functional(program)
    signature = program.graph_signature
    inputs, constants, user = [], {}, 0
    for spec in signature.input_specs:
        name = spec.arg.name
        if spec.kind is InputKind.TOKEN:
            raise LoweringError(_with_effects(program.graph_module))
        if spec.kind is InputKind.USER_INPUT:
            inputs.append((name, spec.kind, user))
            user += 1
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            assert spec.target is not None
            inputs.append((name, spec.kind, spec.target.removeprefix(PREFIX)))
        else:
            constants[name] = program.constants[str(spec.target)]
    outputs = [
        (spec.kind, None if spec.target is None else spec.target.removeprefix(PREFIX))
        for spec in signature.output_specs
    ]
    graph = program.graph_module.graph
    returned = next(n for n in graph.nodes if n.op == "output").args[0]
    around = regions_of(program.graph_module)
    found: set[str] = set()
    for (kind, name), node in zip(outputs, returned, strict=True):
        if kind is OutputKind.BUFFER_MUTATION and isinstance(node, fx.Node):
            _refuse_written_twice(name, captured.regions.checkpoints & {*around[node]})
        if kind is OutputKind.USER_OUTPUT and isinstance(node, fx.Node):
            found |= reached(program.graph_module, node)
    return Exported(
        program.graph_module,
        captured,
        inputs,
        constants,
        outputs,
        structures[-1],
        frozenset(found),
    )


def _refuse_written_twice(name: str | None, checkpoints: set[int]) -> None:
    if checkpoints:
        raise LoweringError(
            f"the buffer {name} is written inside of torch.utils.checkpoint: PyTorch runs that "
            f"again in the backward pass, so it writes twice in every step (a BatchNorm counts "
            f"two batches). Take the checkpoint away and name its modules in remat=, which "
            f"writes once, or set what writes to eval()."
        )


class _Root(nn.Module):
    """What is exported: a function of tensors that returns a tuple of tensors."""

    def __init__(self, module: nn.Module, forward: Callable[..., Any]):
        super().__init__()
        self.module = module
        self.training = module.training
        self._forward = forward

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self._forward(self.module, tensors)


def _write_assigned(module: nn.Module, before: dict[str, torch.Tensor]) -> None:
    """``self.buffer = new`` as a write into the buffer, which a graph shows."""
    for name, new in list(module.named_buffers()):
        old = before.get(name)
        if new is old:
            continue
        if old is None or new.shape != old.shape or new.dtype != old.dtype:
            was = "missing" if old is None else f"{old.dtype}{list(old.shape)}"
            raise LoweringError(
                f"the forward pass makes the buffer {name} {new.dtype}{list(new.shape)}; it "
                f"was {was}. A JAX step keeps shapes and dtypes: register it as it will be."
            )
        old.copy_(new.detach())
        path, _, attribute = name.rpartition(".")
        module.get_submodule(path)._buffers[attribute] = old


def _traced(root: _Root, tensors: tuple, shapes: Any) -> ExportedProgram:
    with _explaining(), contextlib.redirect_stderr(io.StringIO()):  # it prints whole graphs
        return torch.export.export(root, tensors, dynamic_shapes=shapes, strict=False)


@contextlib.contextmanager
def _explaining() -> Iterator[None]:
    """What PyTorch raises, in words that say what to do; and nothing of it logged."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    except LoweringError:
        raise
    except Exception as error:
        raise LoweringError(_explained(error)) from error
    finally:
        logger.setLevel(level)


def _explained(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    place = _line(error)
    if any(x in text for x in ("DataDependent", "DynamicOutputShape", "data-dependent")):
        return (
            f"the forward pass decides by the numbers it computes{place}. JAX traces it once, "
            f"for all numbers: use torch.where or torch.cond for a choice, a mask for a "
            f"selection, or do it before the model."
        )
    if "fake tensor in the exported program" in text:
        return (
            f"the forward pass makes a tensor that torch.export does not see{place}. Common "
            f"causes are torch.autograd.grad inside of it (a gradient penalty: write it with "
            f"jax.grad, over instep.lower of the model) and tensors kept from another call."
        )
    if "is mutated in the forward method" in text:
        return (
            f"the forward pass writes into a tensor that is no buffer of the module: {error}. "
            f"Register it as one; a module that the loss uses (a teacher with BatchNorm) must "
            f"be inside the model, or in eval()."
        )
    return f"torch.export cannot trace the forward pass{place}: {text[:1000]}"


def _line(error: BaseException) -> str:
    """The innermost line outside of PyTorch and instep."""
    inside = tuple(str(Path(file).parent) for file in (torch.__file__, _errors.__file__))
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith((*inside, "<"))]
    return f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""


def _functional(program: ExportedProgram) -> ExportedProgram:
    """Without writes in place; operators without a rule that are made of others, decomposed.

    So is ``instance_norm``, whose schema does not tell that it writes its running statistics.
    """
    known = torch.export.default_decompositions()
    table: dict[Any, Callable] = {}
    while True:
        with _explaining():
            made = program.run_decompositions(table)
        more = {
            op: known[op]
            for op in _operators(made.graph_module)
            if op not in table
            and op in known
            and rule_of(op.namespace, op._opname, op._overloadname) is None
            and torch._C._dispatch_has_kernel_for_dispatch_key(
                op.name(), "CompositeImplicitAutograd"
            )
        }
        if not more:
            return made
        table |= more


def _operators(graph_module: fx.GraphModule) -> set[torch._ops.OpOverload]:
    graphs = (m for m in graph_module.modules() if isinstance(m, fx.GraphModule))
    targets = {node.target for graph in graphs for node in graph.graph.nodes}
    return {t for t in targets if isinstance(t, torch._ops.OpOverload)}


def _with_effects(graph_module: fx.GraphModule) -> str:
    called = [n for n in graph_module.graph.nodes if "with_effects" in str(n.target)]
    found = ", ".join(sorted({f"{n.args[1]} ({where_of(n)})" for n in called}))
    return (
        f"the forward pass runs {found}, which does something else than making tensors: it "
        f"raises by the numbers it is given, or prints. A JAX step cannot; leave it out."
    )


def _differentiated(program: ExportedProgram, root: _Root) -> list[str]:
    """Placeholders of parameters that are trained, and of floating inputs."""
    named = root.named_parameters(remove_duplicate=False)
    trained = {name for name, p in named if p.requires_grad}
    names = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT or spec.target in trained:
            names.append(spec.arg.name)
    return names


def _check_constant(value: Any, name: str) -> None:
    if not torch.is_tensor(value):
        raise LoweringError(f"the forward pass uses {name}, a {type(value).__name__}.")
    if value.requires_grad:
        raise LoweringError(
            f"the forward pass uses a tensor that requires a gradient and is not one of the "
            f"module ({name.removeprefix(PREFIX)}, shape {tuple(value.shape)}). Register it as "
            f"nn.Parameter of the module, or use the module that is given."
        )


def _dynamic(tensors: Sequence[torch.Tensor]) -> tuple[dict[int, Any] | None, ...]:
    batch = Dim("batch")
    size = next((x.shape[0] for x in tensors if x.ndim), None)
    return tuple({0: batch} if x.ndim and x.shape[0] == size else None for x in tensors)


def _refuse_unknown_sizes(graph_module: fx.GraphModule) -> None:
    for module in graph_module.modules():
        if not isinstance(module, fx.GraphModule):
            continue
        for node in module.graph.nodes:
            if getattr(node.target, "_opname", "") in ("item", "_local_scalar_dense"):
                raise LoweringError(
                    f".item() reads a number out of a tensor ({where_of(node)}). Keep it a "
                    f"tensor, with .detach() for its lack of a gradient."
                )
            value = node.meta.get("val")
            for x in value if isinstance(value, tuple | list) else [value]:
                if torch.is_tensor(x) and any(map(free_unbacked_symbols, x.shape)):
                    raise LoweringError(
                        f"{node.target} makes a tensor whose shape depends on numbers "
                        f"({where_of(node)}). JAX needs it before the program runs: use "
                        f"torch.where and a mask instead, or select before the model."
                    )

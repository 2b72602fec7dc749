"""``lower``: a PyTorch module as one pure JAX function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..._errors import LoweringError
from .._arrays import tensor_to_array
from ._compile import compile_graph
from ._draws import Draws
from ._export import Exported, export
from ._program import Program, Ref, run
from ._structure import leaves_like, put_together, take_apart


Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Lowered:
    """An ``nn.Module`` as data: ``outputs, new_buffers = lowered(params, buffers, *args)``.

    Attributes:
      params: the parameters in their shapes and dtypes, NumPy arrays by their names in
        ``state_dict``; of names that share one tensor, the first of ``named_parameters()``.
      buffers: the same for buffers, also those that ``state_dict`` leaves out.
      aliases: the names that are left out, each with the one that stands for it.
      trainable: ``requires_grad`` of every parameter.
      reached: the parameters that the outputs have a gradient for; PyTorch's ``.grad`` of the
        others is None.
      draws: how many random operators there are; with any, ``rng`` is needed.
    """

    params: dict[str, np.ndarray]
    buffers: dict[str, np.ndarray]
    aliases: dict[str, str]
    trainable: dict[str, bool]
    reached: frozenset[str]
    draws: int
    program: Program  # the operators, in order
    inputs: tuple[tuple[str, str, Any], ...]  # name in the program, kind, name or number
    mutated: tuple[str, ...]  # the buffers that the first outputs are
    structure: Any  # of (args, kwargs)
    returned: Any  # structure of the outputs

    def __call__(
        self,
        params: Arrays,
        buffers: Arrays,
        *args: Any,
        rng: jax.Array | Draws | None = None,
        **kwargs: Any,
    ) -> tuple[Any, dict[str, Any]]:
        """Run the forward pass.

        Args:
          params, buffers: arrays by name, as ``self.params`` and ``self.buffers``.
          args, kwargs: as those the module was lowered with, arrays for tensors; what is no
            tensor must be equal.
          rng: a key of ``jax.random``; every random operator draws from a key of its own.

        Returns:
          ``(outputs, new_buffers)``: what the module returns (mappings and objects as a
          ``Record``), and all buffers after the forward pass.

        Raises:
          ValueError: the structure or a constant of the inputs is another, or the module draws
            and there is no ``rng``.
          LoweringError: shapes or dtypes are others than those it was lowered for.
        """
        draws = rng if isinstance(rng, Draws) else Draws(rng)
        given = leaves_like(self.structure, (args, kwargs))
        sources = {"param": params, "buffer": buffers, "input": given}
        values = {name: sources[kind][key] for name, kind, key in self.inputs}
        made = run(self.program, values, draws)
        changed = zip(self.mutated, made, strict=False)
        outputs = put_together(self.returned, made[len(self.mutated) :])
        return outputs, {**buffers, **dict(changed)}


def lower(
    module: nn.Module,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = False,
    remat: str | Sequence[str] = (),
) -> Lowered:
    """Make a PyTorch module a pure JAX function, with PyTorch's gradients.

    Train or eval mode, ``requires_grad``, weights and buffers are taken as they are; the module
    is not changed. ``DistributedDataParallel``, ``DataParallel`` and ``torch.compile`` are
    unwrapped: names are those of the module inside.

    Args:
      module: any ``nn.Module`` that ``torch.export`` can trace.
      args, kwargs: what it is called with: tensors, nested in containers, and constants, which
        become part of the program. The numbers in the tensors are not looked at.
      dynamic_batch: leave the size of the first axis open: the function then takes any.
      remat: modules, each call of which is computed again in the backward pass
        (``jax.checkpoint``) and keeps no activations but its inputs and outputs: regular
        expressions, searched in the paths of ``named_modules()``, as ``r"^blocks\\.\\d+$"``.
        What ``torch.utils.checkpoint`` wraps is such a region by itself. Numbers do not change,
        and dropout draws the same again.

    Returns:
      A function that needs PyTorch no more.

    Raises:
      LoweringError: an operator without a rule (see ``register``), a choice or a shape that
        depends on numbers, a ``torch.autograd.Function`` that is not registered, a float64
        module while JAX's x64 is off, or a ``remat`` that names nothing that is called. The
        message names the line.
    """
    return lower_call(
        module,
        lambda m, *a, **k: m(*a, **k),
        args,
        kwargs or {},
        dynamic_batch=dynamic_batch,
        remat=remat,
    )


def lower_call(
    module: nn.Module,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    dynamic_batch: bool = False,
    remat: str | Sequence[str] = (),
) -> Lowered:
    """``lower`` of ``call(module, *args, **kwargs)``."""
    module = unwrapped(module)
    tensors, structure = take_apart((args, dict(kwargs)), torch.is_tensor)
    _check_float64(module, tensors)
    _check_hooks(module)
    exported = export(module, call, (args, dict(kwargs)), dynamic_batch, remat)
    names, aliases = _names(module)
    captured = exported.captured
    program = compile_graph(exported.graph_module, captured.functions, captured.regions.redrawn)
    program.constants.update({k: tensor_to_array(v) for k, v in exported.constants.items()})
    parameters = dict(module.named_parameters())
    inputs = tuple(_bound(exported, names))
    return Lowered(
        params={name: tensor_to_array(p) for name, p in parameters.items()},
        buffers={name: tensor_to_array(b) for name, b in module.named_buffers()},
        aliases=aliases,
        trainable={name: p.requires_grad for name, p in parameters.items()},
        reached=frozenset(
            str(key)
            for name, kind, key in inputs
            if kind == "param" and name in exported.reached
        ),
        draws=_count_draws(program),
        program=program,
        inputs=inputs,
        mutated=tuple(_mutated(exported, names)),
        structure=structure,
        returned=exported.structure,
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of what PyTorch wraps around one."""
    while True:
        if isinstance(module, DataParallel | DistributedDataParallel):
            module = module.module
        elif isinstance(module, torch._dynamo.OptimizedModule):
            module = module._orig_mod
        else:
            return module


def _names(module: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Every name of a tensor with the one that stands for it, and the names left out."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for name, x in (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ):
        names[name] = first.setdefault(id(x), name)
    return names, {name: kept for name, kept in names.items() if name != kept}


def _bound(exported: Exported, names: dict[str, str]):
    for placeholder, kind, key in exported.inputs:
        if kind is InputKind.USER_INPUT:
            yield placeholder, "input", key
        else:
            yield (
                placeholder,
                "param" if kind is InputKind.PARAMETER else "buffer",
                names[str(key)],
            )


def _mutated(exported: Exported, names: dict[str, str]):
    for kind, target in exported.outputs:
        if kind is OutputKind.BUFFER_MUTATION:
            yield names[str(target)]
        elif kind is not OutputKind.USER_OUTPUT:
            raise LoweringError(
                f"the forward pass writes into {target} ({kind.name.lower()}). Make it a "
                f"buffer of the module, or write into a copy."
            )


def _count_draws(program: Program) -> int:
    """Also in branches."""

    def inside(tree: Any) -> int:
        if isinstance(tree, Program):
            return _count_draws(tree)
        if isinstance(tree, list | tuple) and not isinstance(tree, Ref):
            return sum(map(inside, tree))
        return 0

    return sum((call.draws is not None) + inside(call.args) for call in program.calls)


def _check_hooks(module: nn.Module) -> None:
    for name, x in (*module.named_modules(), *module.named_parameters()):
        hooks = ("_backward_hooks", "_backward_pre_hooks", "_post_accumulate_grad_hooks")
        if any(getattr(x, kind, None) for kind in hooks):
            raise LoweringError(
                f"{name or 'the module'} has a backward hook, which a graph of the forward "
                f"pass has not. Remove it, or write what it does into the loss or the clipping."
            )


def _check_float64(module: nn.Module, tensors: list[torch.Tensor]) -> None:
    if jax.config.read("jax_enable_x64"):
        return
    named = [(f"input {i}", x) for i, x in enumerate(tensors)]
    for name, x in (*module.named_parameters(), *module.named_buffers(), *named):
        if x.dtype in (torch.float64, torch.complex128):
            raise LoweringError(
                f"{name} is {x.dtype}, which JAX does not have while x64 is off. Call "
                f"jax.config.update('jax_enable_x64', True) first, or cast to float32."
            )

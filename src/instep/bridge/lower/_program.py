"""A graph of PyTorch operators as data, and how JAX runs it. Nothing here calls PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..._errors import LoweringError
from ...ops._promotion import default_float
from ._draws import Draws


class Ref(NamedTuple):
    """An argument: what the call of that name returned."""

    name: str


class Made(NamedTuple):
    """What PyTorch makes there. A dimension of None is not known before the program runs."""

    shape: tuple[int | None, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Call:
    """One operator."""

    name: str
    rule: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: Any  # a Made, None where it is no tensor, or a list of these
    op: str  # PyTorch's name of it
    where: str = ""  # module path and source line
    draws: int | None = None  # the number of a random operator: its key


@dataclass(frozen=True)
class Program:
    """Operators in the order they run in."""

    inputs: tuple[str, ...]
    calls: tuple[Call, ...]
    outputs: Any  # a tree with Refs
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    float: Any = np.float32  # torch.get_default_dtype()


def run(program: Program, inputs: Mapping[str, Any], draws: Draws) -> Any:
    """Run ``program``.

    Args:
      program: what ``compile_graph`` made.
      inputs: arrays by name.
      draws: for operators that are random.

    Raises:
      LoweringError: an operator made another shape or dtype than PyTorch does.
    """
    given = {name: jnp.asarray(x) for name, x in inputs.items()}
    with default_float(program.float):
        return _run(program, given, draws, check=True)


def _run(program: Program, inputs: Mapping[str, Any], draws: Draws, check: bool) -> Any:
    values = {name: _constant(x) for name, x in program.constants.items()} | dict(inputs)

    def filled(tree: Any) -> Any:
        if isinstance(tree, Ref):
            return values[tree.name]
        if isinstance(tree, Program):  # a branch
            return lambda *xs: _run(tree, dict(zip(tree.inputs, xs, strict=True)), draws, check)
        if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
            return type(tree)(map(filled, tree))
        if isinstance(tree, dict):
            return {k: filled(v) for k, v in tree.items()}
        return tree

    for call in program.calls:
        args, kwargs = filled(call.args), filled(call.kwargs)
        if call.draws is not None:
            args = (draws.of_call(call.draws, call.op), *args)
        try:
            made = call.rule(*args, **kwargs)
        except Exception as error:
            error.add_note(f"in {call.op}, {call.where}")
            raise
        if check:
            _check(call, call.made, made)
        values[call.name] = made
    return filled(program.outputs)


def _constant(x: np.ndarray) -> Any:
    """A mask stays one of NumPy, whose numbers are known: what it selects has a shape."""
    return x if x.dtype == bool else jnp.asarray(x)


def _check(call: Call, expected: Any, made: Any) -> None:
    if isinstance(expected, list):
        for one, x in zip(expected, made, strict=True):
            _check(call, one, x)
    elif expected is not None:
        dtype = jax.dtypes.canonicalize_dtype(expected.dtype)
        shape = np.shape(made)
        fits = len(shape) == len(expected.shape) and all(
            a in (b, None) for a, b in zip(expected.shape, shape, strict=True)
        )
        if not fits or made.dtype != dtype:
            raise LoweringError(
                f"{call.op} made {made.dtype}{list(shape)}, in PyTorch it makes "
                f"{dtype}{list(expected.shape)} ({call.where}). The program was lowered for "
                f"other shapes or dtypes than it is given; lower it for these."
            )

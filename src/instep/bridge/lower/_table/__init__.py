"""Which JAX function stands for which operator of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from . import (
    _control,
    _indexing,
    _layers,
    _linalg,
    _losses,
    _pointwise,
    _reductions,
    _shapes,
    _spatial,
    _transformers,
)


class Rule(NamedTuple):
    """A JAX function that takes the arguments of an operator, in the order of its schema.

    Arrays stand for tensors and NumPy's dtypes for PyTorch's; defaults are filled in. With
    ``draws``, a ``Draw`` comes first.
    """

    function: Callable[..., Any]
    draws: bool = False


# By the name of the operator, or "name.overload" where one overload differs.
ATEN: dict[str, Callable[..., Any]] = {
    **_pointwise.ATEN,
    **_reductions.ATEN,
    **_linalg.ATEN,
    **_shapes.ATEN,
    **_indexing.ATEN,
    **_spatial.ATEN,
    **_layers.ATEN,
    **_losses.ATEN,
}
RANDOM: dict[str, Callable[..., Any]] = {**_shapes.RANDOM, **_layers.RANDOM}

TABLES = {
    "aten": ATEN,
    "higher_order": _control.HIGHER_ORDER,
    "torch_nn": _losses.TORCH_NN,
    "transformers": _transformers.TRANSFORMERS,
}

_registered: dict[Any, Rule] = {}


def register(op: Any, function: Callable[..., Any], *, draws: bool = False) -> None:
    """Give an operator its JAX function; also in place of instep's own.

    Args:
      op: an operator of ``torch.ops``, with or without its overload, or its name
        ``"namespace.name"`` or ``"namespace.name.overload"``; or a subclass of
        ``torch.autograd.Function``, whose backward no graph shows.
      function: takes the arguments of the operator in the order of its schema, defaults
        filled in, with arrays for tensors and NumPy's dtypes for PyTorch's, and returns what
        it returns. For a ``torch.autograd.Function`` it takes those of ``apply``. It is
        differentiated by JAX: give it the derivative of PyTorch, by ``jax.custom_vjp`` if
        need be.
      draws: the operator is random, and ``function`` takes a ``Draw`` first.

    Raises:
      TypeError: ``op`` is nothing of the kind.
    """
    if isinstance(op, type) and issubclass(op, torch.autograd.Function):
        _registered[op] = Rule(function, draws)
        return
    name = op if isinstance(op, str) else str(op).removeprefix("torch.ops.")
    if isinstance(op, type) or not 1 <= name.count(".") <= 2:
        raise TypeError(
            f"{op!r} is no operator; give torch.ops.aten.relu.default, 'aten.relu' or a "
            f"subclass of torch.autograd.Function."
        )
    _registered[name] = Rule(function, draws)


def function_of(cls: type) -> Callable[..., Any] | None:
    """What is registered for a ``torch.autograd.Function``."""
    rule = _registered.get(cls)
    return None if rule is None else rule.function


def rule_of(namespace: str, name: str, overload: str) -> Rule | None:
    """The rule of an operator; None if there is none."""
    overload = overload or "default"
    for full in (f"{namespace}.{name}.{overload}", f"{namespace}.{name}"):
        if full in _registered:
            return _registered[full]
    if namespace not in TABLES:
        return None
    for key in (f"{name}.{overload}", name):
        if key in TABLES[namespace]:
            return Rule(TABLES[namespace][key])
        if namespace == "aten" and key in RANDOM:
            return Rule(RANDOM[key], draws=True)
    return None

"""Which JAX function stands for which operator of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from . import _indexing, _layers, _losses, _pointwise, _reductions, _shapes, _spatial


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
    **_shapes.ATEN,
    **_indexing.ATEN,
    **_spatial.ATEN,
    **_layers.ATEN,
    **_losses.ATEN,
}
RANDOM: dict[str, Callable[..., Any]] = {**_shapes.RANDOM, **_layers.RANDOM}

_registered: dict[str, Rule] = {}


def rule_of(namespace: str, name: str, overload: str) -> Rule | None:
    """The rule of an operator; None if there is none."""
    for full in (f"{namespace}.{name}.{overload or 'default'}", f"{namespace}.{name}"):
        if full in _registered:
            return _registered[full]
    for key in (f"{name}.{overload or 'default'}", name):
        if namespace == "aten" and key in ATEN:
            return Rule(ATEN[key])
        if namespace == "aten" and key in RANDOM:
            return Rule(RANDOM[key], draws=True)
    return None

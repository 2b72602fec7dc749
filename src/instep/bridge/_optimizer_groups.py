"""The parameter groups of a PyTorch optimizer as one transformation, and their states."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
import torch

from .. import optim
from .._state import PyTree
from .._trees import named_leaves
from ..optim import LBFGSState, OnPlateauState, OptimizerState, ParamGroupsState
from ._layout import SAME
from ._places import Places


OPTIMIZERS: dict[type, Callable[..., Any]] = {
    torch.optim.Adadelta: optim.adadelta,
    torch.optim.Adafactor: optim.adafactor,
    torch.optim.Adagrad: optim.adagrad,
    torch.optim.Adam: optim.adam,
    torch.optim.AdamW: optim.adamw,
    torch.optim.Adamax: optim.adamax,
    torch.optim.ASGD: optim.asgd,
    torch.optim.LBFGS: optim.lbfgs,
    torch.optim.Muon: optim.muon,
    torch.optim.NAdam: optim.nadam,
    torch.optim.RAdam: optim.radam,
    torch.optim.RMSprop: optim.rmsprop,
    torch.optim.Rprop: optim.rprop,
    torch.optim.SGD: optim.sgd,
    torch.optim.SparseAdam: optim.sparse_adam,
}


def grouped(optimizer: torch.optim.Optimizer, where: Places, rates: Sequence[Any]) -> Any:
    """The transformation of all groups."""
    groups: list[Any] = []
    for i, group in enumerate(optimizer.param_groups):
        tx = _transformation(type(optimizer), group, rates[i])
        groups.append((where.mask(i), tx if where.is_trained(i) else None))
    left_over = where.left_over()
    if any(jax.tree.leaves(left_over)):
        groups.append((left_over, None))
    alone = len(groups) == 1 and where.is_trained(0)
    return groups[0][1] if alone else optim.param_groups(groups)


def _transformation(cls: type, group: dict[str, Any], lr: Any) -> Any:
    """The options of a group have the names of our arguments, for both have PyTorch's."""
    make = OPTIMIZERS[cls]
    options = {
        name: _number(group[name])
        for name in inspect.signature(make).parameters
        if name in group and name != "lr"
    }
    return make(lr=lr, **options)


def _number(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return tuple(_number(x) for x in value)
    return value.item() if torch.is_tensor(value) else value


def check_layouts(optimizer: torch.optim.Optimizer, where: Places) -> None:
    """Muon and Adafactor treat the axes of a parameter differently."""
    if not isinstance(optimizer, torch.optim.Muon | torch.optim.Adafactor):
        return
    moved = {name: x.layout for x in where.links for name in x.torch if x.layout is not SAME}
    found = [name for name, p in where.tensors.items() if name in moved and p.ndim > 1]
    if found:
        raise ValueError(
            f"{type(optimizer).__name__} depends on the order of the axes, and {found[0]} has "
            f"the layout {moved[found[0]].name!r} on the JAX side. Keep {', '.join(found)} in "
            f"PyTorch's layout there."
        )


def checked_records(
    opt_state: PyTree, optimizer: torch.optim.Optimizer, where: Places
) -> list[Any]:
    """The state of each of the optimizer's groups; None of one that is frozen."""
    if isinstance(opt_state, OnPlateauState):
        opt_state = opt_state.inner
    states = opt_state.groups if isinstance(opt_state, ParamGroupsState) else (opt_state,)
    records = [x if _is_record(x) else None for x in states]
    strange = [x for x in states if not _is_record(x) and not isinstance(x, optax.EmptyState)]
    if strange:
        raise TypeError(
            f"opt_state is, or holds, a {type(strange[0]).__name__}. Give state.opt_state of "
            f"the transformation that optimizer_from_torch returned, by itself."
        )
    n = len(optimizer.param_groups)
    if len([x for x in records if x is not None]) > n or len(records) < n:
        raise ValueError(
            f"opt_state has {len(records)} groups and the optimizer {n}. Give the state of the "
            f"transformation that optimizer_from_torch made of it."
        )
    # Any rate: a scheduler may have reached 0, which a constructor refuses.
    rates = [lambda count: 1.0] * n
    fresh = jax.eval_shape(grouped(optimizer, where, rates).init, where.params)
    like = fresh.groups if isinstance(fresh, ParamGroupsState) else (fresh,)
    for i, (record, wanted) in enumerate(zip(records[:n], like, strict=False)):
        found, needed = _shapes(record), _shapes(wanted)
        wrong = {name for name in found | needed if found.get(name) != needed.get(name)}
        if wrong:
            name = min(wrong)
            raise ValueError(
                f"group {i} of opt_state is not that of the {type(optimizer).__name__}: {name} "
                f"has the shape {found.get(name)} instead of {needed.get(name)}. Give the "
                f"model, weights and params that optimizer_from_torch was given."
            )
    return records[:n]


def each_group(opt_state: PyTree, change: Callable[[Any, int], Any]) -> PyTree:
    """``opt_state`` with ``change(state, i)`` for the state of every group that is trained."""
    if not isinstance(opt_state, ParamGroupsState):
        return change(opt_state, 0)
    groups = [change(x, i) if _is_record(x) else x for i, x in enumerate(opt_state.groups)]
    return replace(opt_state, groups=tuple(groups))


def _is_record(x: Any) -> bool:
    return isinstance(x, OptimizerState | LBFGSState)


def _shapes(record: Any) -> dict[str, Any]:
    trees = vars(record).copy() if _is_record(record) else {}
    trees.pop("hyperparams", None)
    return {name: np.shape(leaf) for name, leaf in named_leaves(trees).items()}

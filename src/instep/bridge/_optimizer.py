"""Optimizers of PyTorch as transformations with their state, and back, in mid-training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn

from .. import optim
from .._state import PyTree
from ..optim import LBFGSState, OptimizerState, ParamGroupsState
from ._lbfgs import lbfgs_from_torch, lbfgs_to_torch
from ._opt_state import slots, write_slots
from ._optimizer_slots import read_torch_slots, torch_slots
from ._places import places
from ._scheduler import scheduler_to_torch, schedules_from_torch, steps_taken
from ._weights import WeightMap


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


def optimizer_from_torch(
    optimizer: torch.optim.Optimizer,
    model: nn.Module | None = None,
    *,
    weights: WeightMap | None = None,
    params: PyTree = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scheduler_every: int = 1,
    total_steps: int | None = None,
) -> tuple[optax.GradientTransformation, PyTree]:
    """The transformation of a PyTorch optimizer, and its state as it stands now.

    Class, parameter groups, options, per-parameter state, learning rates and the place in the
    schedule come along; ``foreach``, ``fused`` and the like have no meaning in JAX. For a
    checkpoint, load it into the optimizer first.

    Args:
      optimizer: of a class of ``torch.optim`` itself; left as it is.
      model: names the parameters; those it does not train are left alone. None: the names in
        the groups, or the numbers of ``optimizer.state_dict()``.
      weights, params: the JAX parameters and the map to them, from ``match_weights``. None:
        the JAX parameters are ``{name: array}``, in PyTorch's layouts.
      scheduler: steps the learning rate from here on, see ``schedules_from_torch``.
      scheduler_every: optimizer steps per scheduler step.
      total_steps: of the scheduler, where it must be tabulated.

    Returns:
      ``(tx, opt_state)``; several groups make a ``param_groups``.

    Raises:
      TypeError: the class is another one, a subclass for example.
      ValueError: names, groups and leaves do not fit together, or the state of a parameter has
        no counterpart in another layout.
    """
    if type(optimizer) not in OPTIMIZERS:
        raise TypeError(
            f"{type(optimizer).__qualname__} is not a class of torch.optim, so its rule is not "
            f"known. Write it as an optax.GradientTransformation."
        )
    where = places(optimizer, model, weights, params)
    rates: Sequence[Any] = [float(group["lr"]) for group in optimizer.param_groups]
    count = 0
    if scheduler is not None:
        rates = schedules_from_torch(scheduler, total_steps, every=scheduler_every)
        count = steps_taken(scheduler) * scheduler_every
    groups = [
        (where.mask(i), _transformation(type(optimizer), group, rates[i]))
        for i, group in enumerate(optimizer.param_groups)
    ]
    untrained = where.untrained()
    alone = len(groups) == 1 and not any(jax.tree.leaves(untrained))
    if any(jax.tree.leaves(untrained)):
        groups.append((untrained, None))
    tx = groups[0][1] if alone else optim.param_groups(groups)
    opt_state: Any = tx.init(where.params)
    if isinstance(optimizer, torch.optim.LBFGS):
        opt_state = _each(opt_state, lambda x, _: lbfgs_from_torch(x, optimizer, where))
    else:
        opt_state = write_slots(opt_state, read_torch_slots(optimizer, where))
    opt_state = _each(
        opt_state, lambda x, i: _with_hyperparams(x, optimizer.param_groups[i], count)
    )
    return tx, jax.tree.map(jnp.asarray, opt_state)


def optimizer_state_dict(
    opt_state: PyTree,
    optimizer: torch.optim.Optimizer,
    model: nn.Module | None = None,
    *,
    weights: WeightMap | None = None,
    params: PyTree = None,
) -> dict[str, Any]:
    """What ``optimizer.load_state_dict`` takes to stand where ``opt_state`` stands.

    As in PyTorch, a parameter that has taken no step has no state.

    Args:
      opt_state: of the transformation that ``optimizer_from_torch`` returns.
      optimizer: of the same class, with the same groups; left as it is.
      model, weights, params: as for ``optimizer_from_torch``.

    Raises:
      ValueError: names, groups and leaves do not fit together.
    """
    where = places(optimizer, model, weights, params)
    records = _records(opt_state)
    if len(records) != len(optimizer.param_groups):
        raise ValueError(
            f"opt_state has {len(records)} groups and the optimizer "
            f"{len(optimizer.param_groups)}. Give the state of the transformation that "
            f"optimizer_from_torch made of it."
        )
    saved = optimizer.state_dict()
    if isinstance(records[0], LBFGSState):
        state = lbfgs_to_torch(records[0], where)
        state = {0: state} if state else {}
    else:
        state = torch_slots(slots(opt_state), type(optimizer), where)
    groups = [
        group | _current(record, group)
        for group, record in zip(saved["param_groups"], records, strict=True)
    ]
    return saved | {"state": state, "param_groups": groups}


def optimizer_to_torch(
    opt_state: PyTree,
    optimizer: torch.optim.Optimizer,
    model: nn.Module | None = None,
    *,
    weights: WeightMap | None = None,
    params: PyTree = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scheduler_every: int = 1,
) -> None:
    """Write the state back into the PyTorch optimizer, in place.

    PyTorch: ``optimizer.load_state_dict(...)`` of ``optimizer_state_dict``. A scheduler is
    stepped as often as the schedule has advanced since ``optimizer_from_torch``.

    Args:
      opt_state, optimizer, model, weights, params: as for ``optimizer_state_dict``.
      scheduler, scheduler_every: as for ``optimizer_from_torch``.

    Raises:
      ValueError: as ``optimizer_state_dict``; or the scheduler is ahead already.
    """
    if scheduler is not None:
        count = int(_records(opt_state)[0].hyperparams.count)
        scheduler_to_torch(count // scheduler_every, scheduler)
    state_dict = optimizer_state_dict(
        opt_state, optimizer, model, weights=weights, params=params
    )
    optimizer.load_state_dict(state_dict)


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


def _records(opt_state: PyTree) -> list[Any]:
    """The state of each group."""
    return list(opt_state.groups if isinstance(opt_state, ParamGroupsState) else [opt_state])


def _each(opt_state: PyTree, change: Callable[[Any, int], Any]) -> PyTree:
    records = [change(record, i) for i, record in enumerate(_records(opt_state))]
    if isinstance(opt_state, ParamGroupsState):
        return replace(opt_state, groups=tuple(records))
    return records[0]


def _with_hyperparams(record: Any, group: dict[str, Any], count: int) -> Any:
    now = record.hyperparams
    given = {"lr": group["lr"], "momentum": group.get("momentum")}
    given["beta1"] = group.get("betas", (None,))[0]
    values = {n: np.asarray(float(given[n]), old.dtype) for n, old in now.values.items()}
    counted = replace(now, count=jnp.asarray(count, now.count.dtype), values=values)
    return replace(record, hyperparams=counted)


def _current(record: OptimizerState | LBFGSState, group: dict[str, Any]) -> dict[str, Any]:
    """What of a group has changed; a number that only its dtype has rounded has not."""
    values = {n: np.asarray(v) for n, v in record.hyperparams.values.items()}
    changed: dict[str, Any] = {}
    for name, value in values.items():
        theirs = group["betas"][0] if name == "beta1" else group[name]
        if abs(float(value) - float(theirs)) > np.finfo(value.dtype).eps * abs(float(theirs)):
            changed[name] = float(value)
    if "beta1" in changed:
        changed["betas"] = (changed.pop("beta1"), *group["betas"][1:])
    if "lr" in changed and torch.is_tensor(group["lr"]):
        changed["lr"] = torch.full_like(group["lr"], changed["lr"])
    return changed

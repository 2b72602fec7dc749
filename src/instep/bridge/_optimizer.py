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
from ._layout import SAME
from ._lbfgs import lbfgs_from_torch, lbfgs_to_torch
from ._opt_state import slots, write_slots
from ._optimizer_slots import read_torch_slots, torch_slots
from ._places import Places, places
from ._rounded import unless_rounded
from ._scheduler import scheduler_from_torch, scheduler_to_torch, steps_taken
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
    steps: int | None = None,
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
      scheduler: steps the learning rate from here on, see ``scheduler_from_torch``.
      scheduler_every: optimizer steps per scheduler step.
      total_steps: of the scheduler, where it must be tabulated.
      steps: optimizer steps taken so far; None: a multiple of ``scheduler_every``, as at the
        end of an epoch.

    Returns:
      ``(tx, opt_state)``; several groups make a ``param_groups``.

    Raises:
      TypeError: the class is another one, a subclass for example.
      ValueError: names, groups and leaves do not fit together; the rule or the state of a
        parameter has no counterpart in another layout; or ``steps`` is not where the
        scheduler stands.
    """
    if type(optimizer) not in OPTIMIZERS:
        raise TypeError(
            f"{type(optimizer).__qualname__} is not a class of torch.optim, so its rule is not "
            f"known. Write it as an optax.GradientTransformation."
        )
    where = places(optimizer, model, weights, params)
    _check_layouts(optimizer, where)
    rates: Sequence[Any] = [float(group["lr"]) for group in optimizer.param_groups]
    count = 0
    if scheduler is not None:
        rates = scheduler_from_torch(scheduler, total_steps, scheduler_every=scheduler_every)
        count = _count(scheduler, scheduler_every, steps)
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
    records = _checked_records(opt_state, optimizer)
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
    records = _checked_records(opt_state, optimizer)
    if scheduler is not None:
        count = int(records[0].hyperparams.count)
        scheduler_to_torch(count, scheduler, scheduler_every=scheduler_every)
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


def _check_layouts(optimizer: torch.optim.Optimizer, where: Places) -> None:
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


def _count(scheduler: Any, scheduler_every: int, steps: int | None) -> int:
    stands = steps_taken(scheduler)
    if steps is None:
        return stands * scheduler_every
    if steps // scheduler_every != stands:
        raise ValueError(
            f"after {steps=} of the optimizer with {scheduler_every=} the scheduler has been "
            f"stepped {steps // scheduler_every} times; this one has been {stands} times."
        )
    return steps


def _is_record(x: Any) -> bool:
    return isinstance(x, OptimizerState | LBFGSState)


def _checked_records(opt_state: PyTree, optimizer: torch.optim.Optimizer) -> list[Any]:
    """The state of each of the optimizer's groups."""
    states = opt_state.groups if isinstance(opt_state, ParamGroupsState) else (opt_state,)
    records = [x for x in states if not isinstance(x, optax.EmptyState)]
    strange = [type(x).__name__ for x in records if not _is_record(x)]
    if strange:
        raise TypeError(
            f"opt_state is, or holds, a {strange[0]}. Give state.opt_state of the "
            f"transformation that optimizer_from_torch returned, by itself."
        )
    if len(records) != len(optimizer.param_groups):
        raise ValueError(
            f"opt_state has {len(records)} groups and the optimizer "
            f"{len(optimizer.param_groups)}. Give the state of the transformation that "
            f"optimizer_from_torch made of it."
        )
    return records


def _each(opt_state: PyTree, change: Callable[[Any, int], Any]) -> PyTree:
    if not isinstance(opt_state, ParamGroupsState):
        return change(opt_state, 0)
    groups = [change(x, i) if _is_record(x) else x for i, x in enumerate(opt_state.groups)]
    return replace(opt_state, groups=tuple(groups))


def _with_hyperparams(record: Any, group: dict[str, Any], count: int) -> Any:
    now = record.hyperparams
    given = {"lr": group["lr"], "momentum": group.get("momentum")}
    given["beta1"] = group.get("betas", (None,))[0]
    values = {n: np.asarray(float(given[n]), old.dtype) for n, old in now.values.items()}
    counted = replace(now, count=jnp.asarray(count, now.count.dtype), values=values)
    return replace(record, hyperparams=counted)


def _current(record: OptimizerState | LBFGSState, group: dict[str, Any]) -> dict[str, Any]:
    """What of a group has changed; a number that only its dtype has rounded has not."""
    changed: dict[str, Any] = {}
    for name, value in record.hyperparams.values.items():
        theirs = float(group["betas"][0] if name == "beta1" else group[name])
        number = unless_rounded(value, theirs)
        if number != theirs:
            changed[name] = number
    if "beta1" in changed:
        changed["betas"] = (changed.pop("beta1"), *group["betas"][1:])
    if "lr" in changed and torch.is_tensor(group["lr"]):
        changed["lr"] = torch.full_like(group["lr"], changed["lr"])
    return changed

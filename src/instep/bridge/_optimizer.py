"""Optimizers of PyTorch as transformations with their state, and back, in mid-training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from .._state import PyTree
from ..optim import LBFGSState, OnPlateauState, OptimizerState, on_plateau
from ._lbfgs import lbfgs_from_torch, lbfgs_to_torch
from ._opt_state import slots, write_slots
from ._optimizer_groups import (
    OPTIMIZERS,
    check_layouts,
    checked_records,
    each_group,
    grouped,
)
from ._optimizer_slots import read_torch_slots, torch_slots
from ._places import Places, places
from ._plateau import check_metric, plateau_from_torch, plateau_to_torch
from ._rounded import unless_rounded
from ._scheduler import scheduler_from_torch, scheduler_to_torch, steps_taken
from ._weights import WeightMap


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
    metric: Callable[[Any], Any] | None = None,
) -> tuple[optax.GradientTransformation, PyTree]:
    """The transformation of a PyTorch optimizer, and its state as it stands now.

    Class, parameter groups, options, per-parameter state, learning rates and the place in the
    schedule come along; ``foreach``, ``fused`` and the like have no meaning in JAX. Frozen
    parameters (``requires_grad=False``) are left alone. For a checkpoint, load it into the
    optimizer first.

    Args:
      optimizer: of a class of ``torch.optim`` itself; left as it is.
      model: names the parameters; those it does not train are left alone. None: the names in
        the groups, or the numbers of ``optimizer.state_dict()``.
      weights, params: the map to the JAX parameters, from ``match_weights``, and their pytree.
        None: the JAX parameters are ``{name: array}``, in PyTorch's layouts.
      scheduler: steps the learning rate from here on, see ``scheduler_from_torch``.
      scheduler_every: optimizer steps per scheduler step.
      total_steps: of the scheduler, where it must be tabulated.
      steps: optimizer steps taken so far; None: as many as its parameters have, or where they
        do not count, those of whole epochs.
      metric: of the loss of a step, for a ``ReduceLROnPlateau`` alone: see ``on_plateau``.

    Returns:
      ``(tx, opt_state)``; several groups make a ``param_groups``.

    Raises:
      TypeError: the class is another one, a subclass for example.
      ValueError: names, groups and leaves do not fit together; the rule or the state of a
        parameter has no counterpart in another layout; or ``steps`` is not where the
        scheduler stands; or there is a ``metric`` without a ``ReduceLROnPlateau`` or the
        other way round.
    """
    if type(optimizer) not in OPTIMIZERS:
        raise TypeError(
            f"{type(optimizer).__qualname__} is not a class of torch.optim, so its rule is not "
            f"known. Write it as an optax.GradientTransformation."
        )
    where = places(optimizer, model, weights, params)
    check_layouts(optimizer, where)
    rates: Sequence[Any] = [float(group["lr"]) for group in optimizer.param_groups]
    count = 0
    check_metric(scheduler, metric)
    if scheduler is not None:
        _check_own(scheduler, optimizer)
        if metric is None:
            rates = scheduler_from_torch(
                scheduler, total_steps, scheduler_every=scheduler_every
            )
        count = updates_taken(scheduler, scheduler_every, steps)
    tx = grouped(optimizer, where, rates)
    opt_state: Any = tx.init(where.params)
    if isinstance(optimizer, torch.optim.LBFGS):
        opt_state = each_group(opt_state, lambda x, _: lbfgs_from_torch(x, optimizer, where))
    else:
        opt_state = write_slots(opt_state, read_torch_slots(optimizer, where))
    opt_state = each_group(
        opt_state, lambda x, i: _with_hyperparams(x, optimizer.param_groups[i], count)
    )
    if isinstance(scheduler, ReduceLROnPlateau) and metric is not None:
        plateau, state = plateau_from_torch(scheduler)
        tx = on_plateau(tx, plateau, scheduler_every, metric)
        opt_state = OnPlateauState(opt_state, state)
    return tx, jax.tree.map(lambda x: jnp.array(x, copy=True), opt_state)


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
      opt_state: pytree, of the transformation that ``optimizer_from_torch`` returns.
      optimizer: of the same class, with the same groups; left as it is.
      model, weights, params: as for ``optimizer_from_torch``.

    Raises:
      TypeError: ``opt_state`` is not that of an optimizer of ``instep.optim``.
      ValueError: names, groups, slots and shapes are not those of the optimizer.
    """
    where = places(optimizer, model, weights, params)
    return _state_dict(
        opt_state, optimizer, where, checked_records(opt_state, optimizer, where)
    )


def _state_dict(
    opt_state: PyTree, optimizer: torch.optim.Optimizer, where: Places, records: list[Any]
) -> dict[str, Any]:
    saved = optimizer.state_dict()
    if isinstance(records[0], LBFGSState):
        state = lbfgs_to_torch(records[0], where)
        state = {0: state} if state else {}
    else:
        state = saved["state"] | torch_slots(slots(opt_state), type(optimizer), where)
    groups = [
        group if record is None else group | _current(record, group)
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
      TypeError: as ``optimizer_state_dict``.
      ValueError: as ``optimizer_state_dict``; or the scheduler is ahead already.
    """
    where = places(optimizer, model, weights, params)
    records = checked_records(opt_state, optimizer, where)
    trained = [record for record in records if record is not None]
    if scheduler is not None and trained:
        _check_own(scheduler, optimizer)
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        if plateau != isinstance(opt_state, OnPlateauState):
            raise ValueError(
                f"opt_state is a {type(opt_state).__name__}, which is not that of an optimizer "
                f"with a {type(scheduler).__name__}. Give optimizer_to_torch the scheduler "
                f"that optimizer_from_torch was given."
            )
        if plateau:
            plateau_to_torch(opt_state.plateau, cast(ReduceLROnPlateau, scheduler))
        else:
            count = int(trained[0].hyperparams.count)
            scheduler_to_torch(count, scheduler, scheduler_every=scheduler_every)
    optimizer.load_state_dict(_state_dict(opt_state, optimizer, where, records))


def _check_own(scheduler: Any, optimizer: torch.optim.Optimizer) -> None:
    if scheduler.optimizer is not optimizer:
        raise ValueError(
            f"the {type(scheduler).__name__} sets the rates of another optimizer than this "
            f"{type(optimizer).__name__}. Make the scheduler with the optimizer that is given."
        )


def updates_taken(scheduler: Any, scheduler_every: int, steps: int | None = None) -> int:
    """Optimizer steps taken, which the scheduler must have seen."""
    stands = steps_taken(scheduler)
    if steps is None:
        kept = scheduler.optimizer.state.values()
        counted = max((int(slots["step"]) for slots in kept if "step" in slots), default=0)
        whole = stands * scheduler_every
        return counted if counted // scheduler_every == stands else whole
    if steps // scheduler_every != stands:
        raise ValueError(
            f"after {steps=} of the optimizer with {scheduler_every=} the scheduler has been "
            f"stepped {steps // scheduler_every} times; this one has been {stands} times."
        )
    return steps


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

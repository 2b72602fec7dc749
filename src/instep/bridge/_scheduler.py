"""Learning rate schedulers of PyTorch as schedules, and back, in mid-training."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import torch
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR

from .. import schedules
from ..schedules import Schedule, from_table


LRScheduler = lr_scheduler.LRScheduler

# Rates that agree to this are the closed form's; what edited a rate by hand moves it further.
CLOSED_FORM = 1e-9


def scheduler_from_torch(
    scheduler: LRScheduler, total_steps: int | None = None, *, scheduler_every: int = 1
) -> tuple[Schedule, ...]:
    """The schedule of every parameter group, from where the scheduler stands now.

    PyTorch: any ``torch.optim.lr_scheduler.LRScheduler``.

    The count of a schedule goes on from PyTorch's: at the beginning of an epoch of
    ``scheduler_every`` updates the next one uses
    ``schedule(steps_taken(scheduler) * scheduler_every)``.

    A scheduler that still follows its closed form becomes the schedule of the same name. Any
    other (``MultiplicativeLR``, ``ChainedScheduler``, a class of your own, a rate edited by
    hand) is tabulated: a copy of it is stepped until ``total_steps``.

    Args:
      scheduler: left as it is, and so is its optimizer.
      total_steps: steps of the scheduler from its beginning, for one that is tabulated.
      scheduler_every: optimizer steps per scheduler step; above 1 the schedules are
        ``per_epoch``.

    Returns:
      One schedule per parameter group. Those of ``CyclicLR`` and ``OneCycleLR`` carry the
      momentum that they cycle.

    Raises:
      TypeError: it is a ``ReduceLROnPlateau``: see ``plateau_from_torch``.
      ValueError: it has to be tabulated and there is no ``total_steps``, or it is past it.
    """
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        raise TypeError(
            "ReduceLROnPlateau steps on a metric and has no schedule; use "
            "bridge.plateau_from_torch."
        )
    made: Sequence[Schedule] | None = _closed_forms(scheduler, total_steps)
    if made is None:
        made = _tables(scheduler, total_steps)
    if scheduler_every > 1:
        made = [schedules.per_epoch(schedule, scheduler_every) for schedule in made]
    return tuple(made)


def scheduler_to_torch(count: int, scheduler: LRScheduler, *, scheduler_every: int = 1) -> None:
    """Step a scheduler, in place, until it stands where it does after ``count`` updates.

    Its own ``scheduler.step()`` sets the learning rates of its optimizer, as if it had been
    there.

    Args:
      count: of the schedule: ``opt_state.hyperparams.count``.
      scheduler: as ``scheduler_from_torch`` was given it.
      scheduler_every: updates per scheduler step.

    Raises:
      ValueError: it is ahead already.
    """
    wanted = int(count) // scheduler_every
    behind = wanted - steps_taken(scheduler)
    if behind < 0:
        raise ValueError(
            f"the scheduler has been stepped {steps_taken(scheduler)} times already, more than "
            f"the {wanted} of the JAX side. Give the one that optimizer_from_torch was given."
        )
    with _optimizer_steps_elsewhere():
        for _ in range(behind):
            scheduler.step()


@contextmanager
def _optimizer_steps_elsewhere() -> Iterator[None]:
    """PyTorch would ask for ``optimizer.step()`` first: those steps are taken in JAX."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*lr_scheduler.step.*|.*optimizer.step.*")
        yield


def steps_taken(scheduler: LRScheduler) -> int:
    """How often ``scheduler.step()`` has been called, ``scheduler.last_epoch``.

    Args:
      scheduler: of a ``torch.optim.lr_scheduler.ChainedScheduler`` its first member counts.
    """
    if isinstance(scheduler, lr_scheduler.ChainedScheduler):
        return steps_taken(scheduler._schedulers[0])
    return int(scheduler.last_epoch)


def _closed_forms(scheduler: LRScheduler, total_steps: int | None) -> list[Schedule] | None:
    """The schedules of the same name, if they give the rates that stand there now."""
    if isinstance(scheduler, lr_scheduler.LambdaLR) and total_steps is not None:
        return None  # a table holds what the function returns, to the last bit
    groups, now = scheduler.optimizer.param_groups, steps_taken(scheduler)
    try:
        made = [_closed_form(scheduler, i, group) for i, group in enumerate(groups)]
        expected = [_on_host(schedule, now) for schedule in made]
    except (KeyError, ValueError):  # a class without one, or a count beyond its end
        return None
    theirs = [float(group["lr"]) for group in groups]
    same = np.allclose(expected, theirs, rtol=CLOSED_FORM, atol=CLOSED_FORM * max(theirs))
    return made if same else None


def _closed_form(scheduler: LRScheduler, i: int, group: dict[str, Any]) -> Schedule:
    return _MAKERS[type(scheduler)](scheduler, i, group)


def _on_host(schedule: Schedule, count: int) -> float:
    with jax.enable_x64(True):
        return float(schedule(count))


def _tables(scheduler: LRScheduler, total_steps: int | None) -> list[Schedule]:
    first = steps_taken(scheduler)
    name = type(scheduler).__name__
    if total_steps is None:
        raise ValueError(
            f"this {name} has no closed form from where it stands, so it is tabulated: give "
            f"total_steps, the number of its steps from its beginning (it has taken {first})."
        )
    if total_steps < first:
        raise ValueError(f"{total_steps=}, but this {name} has taken {first} steps already.")
    optimizer, copied = _copy(scheduler)
    rows, fixed = [_standing(optimizer)], _fixed(optimizer)
    with _optimizer_steps_elsewhere():
        for _ in range(first, total_steps):
            copied.step()
            rows.append(_standing(optimizer))
    changed = [a for a, b in zip(fixed, _fixed(optimizer), strict=True) if a != b]
    if changed:
        raise ValueError(
            f"this {name} sets {changed[0][0]!r} too, which is fixed when an optimizer of "
            f"instep.optim is made; lr, momentum and betas[0] may be schedules."
        )
    before = [[(np.nan, np.nan)] * len(rows[0])] * first
    table = np.array(before + rows, np.float64)  # (count, group, lr or momentum)
    cycles = (table[first:, :, 1] != table[first, :, 1]).any(0)
    return [
        from_table(table[:, i, 0], table[:, i, 1] if cycles[i] else None)
        for i in range(table.shape[1])
    ]


def _copy(scheduler: LRScheduler) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """A copy of scheduler and optimizer that shares the tensors."""
    optimizer = scheduler.optimizer
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [t for slots in optimizer.state.values() for t in slots.values()]
    shared = {id(t): t for t in (*parameters, *kept) if torch.is_tensor(t)}
    return copy.deepcopy((optimizer, scheduler), shared)


def _fixed(optimizer: torch.optim.Optimizer) -> list[tuple[str, str]]:
    """What of the groups no schedule may change."""
    return [
        (key, repr(value[1:] if key == "betas" else value))
        for group in optimizer.param_groups
        for key, value in group.items()
        if key not in ("params", "lr", "momentum")
    ]


def _standing(optimizer: torch.optim.Optimizer) -> list[tuple[float, float]]:
    return [
        (float(group["lr"]), float(group.get("betas", (group.get("momentum", 0.0),))[0]))
        for group in optimizer.param_groups
    ]


def _one_cycle(s: Any, _: int, group: dict[str, Any]) -> Schedule:
    phases = s._schedule_phases
    return schedules.one_cycle_lr(
        group["max_lr"],
        total_steps=s.total_steps,
        pct_start=(phases[0]["end_step"] + 1) / s.total_steps,
        anneal_strategy=s._anneal_func_type,
        cycle_momentum=s.cycle_momentum,
        base_momentum=group.get("base_momentum", 0.85),
        max_momentum=group.get("max_momentum", 0.95),
        div_factor=group["max_lr"] / group["initial_lr"],
        final_div_factor=group["initial_lr"] / group["min_lr"],
        three_phase=len(phases) == 3,
    )


def _cyclic(s: Any, i: int, group: dict[str, Any]) -> Schedule:
    up = s.total_size * s.step_ratio
    if abs(up - round(up)) > 1e-9 * up or not float(s.total_size).is_integer():
        raise ValueError("a cycle of fractional steps has no closed form here")
    up = round(up)
    return schedules.cyclic_lr(
        float(s.base_lrs[i]),
        float(s.max_lrs[i]),
        step_size_up=up,
        step_size_down=int(s.total_size) - up,
        mode=s.mode,
        gamma=s.gamma,
        scale_fn=s._scale_fn_custom,
        scale_mode=s.scale_mode,
        cycle_momentum=s.cycle_momentum,
        base_momentum=group.get("base_momentum", 0.8),
        max_momentum=group.get("max_momentum", 0.9),
    )


def _base(s: Any, i: int) -> float:
    return float(s.base_lrs[i])


_MAKERS: dict[type, Callable[[Any, int, dict[str, Any]], Schedule]] = {
    lr_scheduler.LambdaLR: lambda s, i, _: schedules.lambda_lr(_base(s, i), s.lr_lambdas[i]),
    lr_scheduler.StepLR: lambda s, i, _: schedules.step_lr(_base(s, i), s.step_size, s.gamma),
    lr_scheduler.MultiStepLR: lambda s, i, _: schedules.multi_step_lr(
        _base(s, i), list(s.milestones.elements()), s.gamma
    ),
    lr_scheduler.ConstantLR: lambda s, i, _: schedules.constant_lr(
        _base(s, i), s.factor, s.total_iters
    ),
    lr_scheduler.LinearLR: lambda s, i, _: schedules.linear_lr(
        _base(s, i), s.start_factor, s.end_factor, s.total_iters
    ),
    lr_scheduler.ExponentialLR: lambda s, i, _: schedules.exponential_lr(_base(s, i), s.gamma),
    lr_scheduler.PolynomialLR: lambda s, i, _: schedules.polynomial_lr(
        _base(s, i), s.total_iters, s.power
    ),
    lr_scheduler.CosineAnnealingLR: lambda s, i, _: schedules.cosine_annealing_lr(
        _base(s, i), s.T_max, s.eta_min
    ),
    lr_scheduler.CosineAnnealingWarmRestarts: (
        lambda s, i, _: schedules.cosine_annealing_warm_restarts(
            _base(s, i), s.T_0, s.T_mult, s.eta_min
        )
    ),
    lr_scheduler.OneCycleLR: _one_cycle,
    lr_scheduler.CyclicLR: _cyclic,
    lr_scheduler.SequentialLR: lambda s, i, group: schedules.sequential_lr(
        [_closed_form(member, i, group) for member in s._schedulers], s._milestones
    ),
    SWALR: lambda s, i, group: schedules.swa_lr(
        _base(s, i), group["swa_lr"], s.anneal_epochs, s._anneal_strategy
    ),
}

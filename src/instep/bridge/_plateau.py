"""ReduceLROnPlateau, whose state follows a metric and not a count, both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from torch.optim import lr_scheduler

from .. import schedules
from ..schedules import Plateau, PlateauState
from ._rounded import unless_rounded


def plateau_from_torch(
    scheduler: lr_scheduler.ReduceLROnPlateau,
) -> tuple[Plateau, PlateauState]:
    """``reduce_lr_on_plateau`` and its state as it stands; one rate per parameter group.

    Args:
      scheduler: a ``torch.optim.lr_scheduler.ReduceLROnPlateau``; left as it is.
    """
    rates = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
    single = len(rates) == 1
    plateau = schedules.reduce_lr_on_plateau(
        rates[0] if single else rates,
        mode=cast(Any, scheduler.mode),
        factor=scheduler.factor,
        patience=scheduler.patience,
        threshold=scheduler.threshold,
        threshold_mode=cast(Any, scheduler.threshold_mode),
        cooldown=scheduler.cooldown,
        min_lr=scheduler.min_lrs[0] if single else scheduler.min_lrs,
        eps=scheduler.eps,
    )
    fresh = plateau.init()
    names = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
    values = {n: jnp.asarray(getattr(scheduler, n), getattr(fresh, n).dtype) for n in names}
    return plateau, PlateauState(lr=fresh.lr, **values)


def check_metric(scheduler: Any, metric: Callable[[Any], Any] | None) -> None:
    """A ``ReduceLROnPlateau`` steps on a metric, and no other scheduler does.

    Raises:
      ValueError: one is given without the other.
      TypeError: the scheduler is of a subclass, whose rule is not known.
    """
    plateau = isinstance(scheduler, lr_scheduler.ReduceLROnPlateau)
    name = "no scheduler" if scheduler is None else type(scheduler).__name__
    if plateau and type(scheduler) is not lr_scheduler.ReduceLROnPlateau:
        raise TypeError(
            f"{name} is not torch's own ReduceLROnPlateau, so its rule is not known. Step it "
            f"in your own loop and set the rate with instep.optim.set_hyperparams."
        )
    if plateau and metric is None:
        raise ValueError(
            "ReduceLROnPlateau steps on a metric: give metric=lambda loss: loss, a function "
            "of the mean loss of the step. One of validation data is not known inside a step: "
            "for that use bridge.plateau_from_torch and instep.optim.set_hyperparams."
        )
    if metric is not None and not plateau:
        raise ValueError(
            f"metric is what ReduceLROnPlateau steps on, and there is {name}. Leave it out."
        )


def plateau_to_torch(state: PlateauState, scheduler: lr_scheduler.ReduceLROnPlateau) -> None:
    """Write the state and the learning rates into PyTorch's scheduler and its optimizer.

    Args:
      state: of as many groups; a rate that only its dtype has rounded is left as it was.
      scheduler: a ``torch.optim.lr_scheduler.ReduceLROnPlateau``, changed in place.

    Raises:
      ValueError: the optimizer has another number of groups.
    """
    groups, rates = scheduler.optimizer.param_groups, np.atleast_1d(state.lr)
    if len(rates) != len(groups):
        raise ValueError(
            f"the state has {len(rates)} learning rates and the optimizer {len(groups)} "
            f"parameter groups; give the scheduler that the state was made from."
        )
    for group, lr in zip(groups, rates, strict=True):
        lr = unless_rounded(lr, float(group["lr"]))
        lr_scheduler._update_param_group_val(group, "lr", lr)
    scheduler.best = unless_rounded(state.best, scheduler.best)
    for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
        setattr(scheduler, name, int(getattr(state, name)))
    scheduler._last_lr = [float(group["lr"]) for group in groups]

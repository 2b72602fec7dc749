"""ReduceLROnPlateau, whose state follows a metric and not a count, both ways."""

from __future__ import annotations

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
    """``reduce_lr_on_plateau`` and its state as it stands; one rate per parameter group."""
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


def plateau_to_torch(state: PlateauState, scheduler: lr_scheduler.ReduceLROnPlateau) -> None:
    """Write the state and the learning rates into PyTorch's scheduler and its optimizer."""
    groups = scheduler.optimizer.param_groups
    for group, lr in zip(groups, np.atleast_1d(state.lr), strict=True):
        lr = unless_rounded(lr, float(group["lr"]))
        lr_scheduler._update_param_group_val(group, "lr", lr)
    scheduler.best = unless_rounded(state.best, scheduler.best)
    for name in ("num_bad_epochs", "cooldown_counter", "last_epoch"):
        setattr(scheduler, name, int(getattr(state, name)))
    scheduler._last_lr = [float(group["lr"]) for group in groups]

"""One row of the page: three pieces of code that mean to do the same."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax.training.dynamic_scale import DynamicScale
from torch.optim import lr_scheduler, swa_utils

import instep


ROUNDING = 1e-12  # what is smaller is rounding in float64


class Difference(NamedTuple):
    """From PyTorch: of instep, of the neighbour, and that over the distance travelled."""

    ours: float
    other: float
    of_the_way: float | None = None


@dataclass(frozen=True)
class Dialect:
    """One row: three pieces of code that mean to do the same."""

    torch: str
    ours: str
    other: str
    why: str
    measure: Callable[[Dialect], Difference]
    rounding: float = ROUNDING  # what instep's column may show; more only where why says it

    def __call__(self) -> Difference:
        with float64():
            return self.measure(self)


@contextmanager
def float64() -> Iterator[None]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # schedulers stepped without an optimizer
            yield
    finally:
        torch.set_default_dtype(default)


def run(code: str, **names: Any) -> Any:
    """The value of a cell. They are all in this package: nothing else is evaluated."""
    return eval(code, {**NAMES, **names})


def optimizer_and_scheduler(code: str, params: list[torch.Tensor]) -> tuple[Any, Any]:
    """Of ``"optimizer"`` or ``"optimizer; scheduler"``."""
    first, *second = code.split("; ")
    opt = run(first, params=params)
    return opt, run(second[0], opt=opt) if second else None


NAMES = {
    "DynamicScale": DynamicScale,
    "instep": instep,
    "jnp": jnp,
    "lr_scheduler": lr_scheduler,
    "optax": optax,
    "swa_utils": swa_utils,
    "torch": torch,
}


def compared(theirs, ours, other, start=None) -> Difference:
    return Difference(
        far(theirs, ours), far(theirs, other), start and far(theirs, other, since=start)
    )


def far(theirs, ours, since=None) -> float:
    """The worst leaf: max|difference| / max|leaf|, or / max|distance from ``since``|."""
    worst = 0.0
    for n, a in theirs.items():
        a, b = (np.asarray(x, np.float64) for x in (a, ours[n]))
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        d = np.where(same, 0.0, np.abs(a - b)).max()
        scale = np.abs(a - (0.0 if since is None else since[n]))
        finite = scale[np.isfinite(scale)].max(initial=0.0)
        worst = float(np.fmax(worst, d / finite if finite else d)) if d == d else math.nan
        if worst != worst:
            return worst
    return worst


def relative(theirs, ours) -> float:
    """The largest relative difference of two runs of numbers."""
    a, b = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    if not np.isfinite(b[np.isfinite(a)]).all():
        return math.nan
    return float(np.max(np.abs(a - b) / np.where(a == 0.0, np.abs(a).max(), np.abs(a))))

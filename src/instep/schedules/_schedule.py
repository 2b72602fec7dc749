"""A schedule: the hyperparameters of the update number ``count``, as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._checks import integer
from ._recursion import Node


Rate = Callable[[jax.Array], jax.Array]


@dataclass(frozen=True)
class Schedule:
    """``schedule(count)``: the learning rate of the update number ``count``, from 0.

    PyTorch: ``optimizer.param_groups[0]["lr"]`` when ``scheduler.step()`` has been called
    ``count`` times. It may be jitted, vmapped and scanned over.

    ``schedule.momentum`` is None, or the schedule of what PyTorch's scheduler sets beside the
    learning rate: ``momentum`` of SGD and RMSprop, ``betas[0]`` of Adam and its relatives.

    Everything it holds is a Python float or a NumPy float64 array: the rate is float64 when
    x64 is on as it is called, however it was when the schedule was made.
    """

    rate: Rate  # of a count within 0..last
    momentum: Schedule | None = None
    node: Node | None = None  # PyTorch's recursion, for chained_scheduler and sequential_lr
    entered: Rate | None = None  # after a SequentialLR's milestone; None: not in closed form
    last: int | None = None  # the largest count; None: any

    def __call__(self, count: jax.Array | np.ndarray | int) -> jax.Array:
        """Return the rate, of shape (), float64 under x64, else float32.

        Raises:
          ValueError: ``count`` is beyond what ``total_steps`` allows. Where it is not known
            (under ``jax.jit``) the rate is NaN.
        """
        if self.last is None:
            return jnp.asarray(self.rate(jnp.asarray(count)), jnp.result_type(float))
        if not isinstance(count, Tracer) and not 0 <= int(count) <= self.last:
            raise ValueError(
                f"count={int(count)} is outside 0..{self.last}, which is what "
                f"total_steps={self.last} allows. Make the schedule with a larger total_steps."
            )
        count = jnp.asarray(count)
        rate = self.rate(jnp.clip(count, 0, self.last))
        return jnp.where((count >= 0) & (count <= self.last), rate, jnp.nan)


def per_epoch(schedule: Schedule, steps_per_epoch: int) -> Schedule:
    """The schedule of a loop that calls ``scheduler.step()`` once per epoch.

    .. math:: \\gamma_t = \\mathrm{schedule}(\\lfloor t / n \\rfloor)

    Args:
      schedule: a schedule in epochs; its momentum goes along.
      steps_per_epoch: updates between two calls of ``scheduler.step()``, :math:`n`.

    Returns:
      A schedule in updates. ``total_steps`` of ``schedule`` goes on counting epochs.

    Raises:
      ValueError: ``steps_per_epoch`` is not a positive integer.
    """
    n = integer("steps_per_epoch", steps_per_epoch)
    last = None if schedule.last is None else (schedule.last + 1) * n - 1
    momentum = schedule.momentum and per_epoch(schedule.momentum, n)
    return Schedule(lambda count: schedule.rate(count // n), momentum, last=last)


def tabulated(node: Node, total_steps: int | None, why: str) -> Schedule:
    """PyTorch's recursion, run on the host in float64 for the counts 0 to ``total_steps``.

    Without ``total_steps`` the schedule can only be a member of another one.

    Args:
      node: the recursion.
      total_steps: calls of ``scheduler.step()``.
      why: the reason why there is no closed form, for the error message.

    Raises:
      ValueError: ``total_steps`` is not a positive integer, or PyTorch itself raises.
    """
    if total_steps is None:

        def rate(count: jax.Array) -> NoReturn:
            raise ValueError(
                f"{why}, so that {node.name} is tabulated: give it total_steps, the number of "
                f"updates to be made, or make it a member of a schedule that has total_steps."
            )

        return Schedule(rate, node=node)
    total_steps = integer("total_steps", total_steps)
    return replace(from_table(*node.simulate(total_steps)), node=node)


def from_table(rates: np.ndarray, momenta: np.ndarray | None = None) -> Schedule:
    """The schedule whose values for the counts 0, 1, ... are listed.

    PyTorch: ``scheduler.get_last_lr()`` after each of as many ``scheduler.step()``.

    Args:
      rates: learning rates, float64, shape ``(total_steps + 1,)``.
      momenta: of the same shape, for a schedule that cycles the momentum.
    """

    def rate(count: jax.Array) -> jax.Array:
        return jnp.asarray(rates, jnp.result_type(float))[count]

    momentum = None if momenta is None else from_table(momenta)
    return Schedule(rate, momentum, last=len(rates) - 1)

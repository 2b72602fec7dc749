"""The one-cycle policy."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ._checks import choice, integer, number
from ._curves import CURVES, floating
from ._recursion import Group, Leaf, Moment
from ._schedule import Rate, Schedule


class Phase(NamedTuple):
    """From ``begin`` to ``end``, steps in float64; the other fields are keys of a group."""

    begin: float
    end: float
    from_lr: str
    to_lr: str
    from_momentum: str
    to_momentum: str


def one_cycle_lr(
    max_lr: float,
    total_steps: int | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    cycle_momentum: bool = True,
    base_momentum: float = 0.85,
    max_momentum: float = 0.95,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """``torch.optim.lr_scheduler.OneCycleLR``.

    The rate goes along a curve from :math:`\\eta_{max}/d` to :math:`\\eta_{max}` at
    :math:`t = pT - 1`, and from there to :math:`\\eta_{max}/(d f)` at :math:`t = T - 1`; with
    ``three_phase`` to :math:`\\eta_{max}/d` at :math:`t = 2pT - 2` in between. The momentum
    falls while the rate rises. A phase may end between two steps, as :math:`pT` need not be an
    integer.

    ``optax.cosine_onecycle_schedule`` ends its phases at :math:`\\lfloor pT \\rfloor` and
    :math:`T`, so that its last rate is 1,000 times larger, and has no momentum.

    At ``count = total_steps``, where PyTorch still takes a step of the scheduler, the last
    curve goes on: a cosine turns back up, a line falls below :math:`\\eta_{max}/(d f)`, and
    often below zero. No update uses it in a loop of ``total_steps`` updates.

    Args:
      max_lr: :math:`\\eta_{max}`; the ``lr`` of the optimizer is not used, as in PyTorch.
      total_steps: :math:`T`, or
      epochs, steps_per_epoch: their product is.
      pct_start: :math:`p`, a float in [0, 1].
      anneal_strategy: the curve, "cos" or "linear".
      cycle_momentum: the schedule has a ``momentum``.
      base_momentum: where the rate is largest.
      max_momentum: at both ends.
      div_factor: :math:`d`.
      final_div_factor: :math:`f`.
      three_phase: go down to the first rate before going to the last one.

    Returns:
      ``schedule(count)`` for counts up to ``total_steps``, with ``schedule.momentum(count)``
      unless ``cycle_momentum=False``.

    Raises:
      TypeError: a value is not a number.
      ValueError: ``total_steps`` is not given or an argument is out of range.

    References:
      Smith and Topin, `Super-Convergence <https://arxiv.org/abs/1708.07120>`_, 2017.
    """
    T = _total_steps(total_steps, epochs, steps_per_epoch)
    if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
        raise ValueError(f"pct_start must be a float in [0, 1]; got {pct_start=}.")
    choice("anneal_strategy", anneal_strategy, *CURVES)
    max_lr = number("max_lr", max_lr)
    first_lr = max_lr / number("div_factor", div_factor)
    levels: Group = {
        "initial_lr": first_lr,
        "max_lr": max_lr,
        "min_lr": first_lr / number("final_div_factor", final_div_factor),
        "max_momentum": number("max_momentum", max_momentum),
        "base_momentum": number("base_momentum", base_momentum),
    }
    phases = _phases(T, pct_start, three_phase)
    if phases[0].end == 0:
        raise ValueError(
            f"pct_start * total_steps = {pct_start} * {T} is 1, so that the first phase has no "
            f"steps and PyTorch divides by zero. Change pct_start a little."
        )
    # PyTorch divides by zero at step T if the last phase has no length (pct_start = 1).
    last = T - 1 if phases[-1].begin == phases[-1].end else T

    def along(start: str, end: str) -> Rate:
        """The rate or momentum, given the fields of Phase that name its two ends."""
        keys = [(getattr(phase, start), getattr(phase, end)) for phase in phases]
        values = [(levels[a], levels[b]) for a, b in keys]
        return lambda count: _pieces(phases, values, count, anneal_strategy)

    def anneal(now: Moment, start: str, end: str) -> float:
        t = now.last_epoch
        if t > T:
            raise ValueError(
                f"one_cycle_lr(total_steps={T}) is stepped {t} times, where PyTorch raises. "
                f"Make it with a larger total_steps, or let a milestone end it earlier."
            )
        phase = next((p for p in phases[:-1] if t <= p.end), phases[-1])
        a, b = (now.group[getattr(phase, end_of)] for end_of in (start, end))
        done = (t - phase.begin) / (phase.end - phase.begin)
        if anneal_strategy == "linear":
            return (b - a) * done + a
        return b + (a - b) / 2.0 * (1 + math.cos(math.pi * done))

    def setup(group: Group) -> None:
        group |= {k: v for k, v in levels.items() if k.endswith("lr") or cycle_momentum}
        if cycle_momentum:
            group["momentum"] = group["max_momentum"]

    leaf = Leaf(
        "one_cycle_lr",
        None,
        get_lr=lambda now: anneal(now, "from_lr", "to_lr"),
        get_momentum=(lambda now: anneal(now, "from_momentum", "to_momentum"))
        if cycle_momentum
        else None,
        setup=setup,
    )
    momentum = along("from_momentum", "to_momentum")
    return Schedule(
        along("from_lr", "to_lr"),
        Schedule(momentum, last=last) if cycle_momentum else None,
        leaf,
        last=last,
    )


def _total_steps(total_steps, epochs, steps_per_epoch) -> int:
    if total_steps is not None:
        return integer("total_steps", total_steps)
    if epochs is None or steps_per_epoch is None:
        raise ValueError(
            f"give total_steps, or epochs and steps_per_epoch; got {total_steps=}, {epochs=}, "
            f"{steps_per_epoch=}."
        )
    return integer("epochs", epochs) * integer("steps_per_epoch", steps_per_epoch)


def _phases(T: int, pct_start: float, three_phase: bool) -> list[Phase]:
    top = float(pct_start * T) - 1
    up = ("initial_lr", "max_lr", "max_momentum", "base_momentum")
    down = ("max_lr", "initial_lr", "base_momentum", "max_momentum")
    if not three_phase:
        return [
            Phase(0.0, top, *up),
            Phase(top, T - 1.0, "max_lr", "min_lr", "base_momentum", "max_momentum"),
        ]
    back = float(2 * pct_start * T) - 2
    return [
        Phase(0.0, top, *up),
        Phase(top, back, *down),
        Phase(back, T - 1.0, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
    ]


def _pieces(
    phases: list[Phase], values: list[tuple[float, float]], count: jax.Array, strategy: str
) -> jax.Array:
    """The first phase that ends at ``count`` or later, else the last one.

    The ends are split on the host into an integer and a fraction, so that the distances are
    exact where they are small: ``count - begin`` is ``(count - ceil) + fraction``.
    """
    result = jnp.zeros((), jnp.result_type(float))
    for phase, (start, end) in reversed(list(zip(phases, values, strict=True))):
        ceil, floor = math.ceil(phase.begin), math.floor(phase.end)
        done = floating(count - ceil) + (ceil - phase.begin)
        left = floating(floor - count) + (phase.end - floor)
        total = (phase.end - phase.begin) or 1.0  # a phase without length is never chosen
        piece = CURVES[strategy](start, end, done, left, total)
        result = piece if phase is phases[-1] else jnp.where(count <= floor, piece, result)
    return result

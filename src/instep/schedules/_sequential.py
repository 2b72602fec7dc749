"""One schedule after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence as Several

import jax
import jax.numpy as jnp

from ._chained import member_nodes
from ._checks import integer
from ._recursion import Sequence, common_base_lr
from ._schedule import Rate, Schedule, tabulated


def sequential_lr(
    schedulers: Several[Schedule], milestones: Several[int], total_steps: int | None = None
) -> Schedule:
    """``torch.optim.lr_scheduler.SequentialLR``.

    .. math:: \\eta_t = \\eta^{(i)}_{t - m_i}, \\quad m_i \\le t < m_{i+1}, \\quad m_0 = 0

    as ``optax.join_schedules`` does. That holds where every member is a closed form of the step
    alone, and then no ``total_steps`` is needed. The others go on from the rate that they find:
    ``multiplicative_lr``, ``swa_lr``, ``chained_scheduler``, a sequence in a sequence, and all
    beside ``cyclic_lr`` or ``one_cycle_lr``, which change the optimizer as they are made. Of
    these PyTorch's own steps are tabulated.

    Example: linear warm-up, then a cosine::

        warmup = linear_lr(0.1, start_factor=0.01, total_iters=500)
        decay = cosine_annealing_lr(0.1, T_max=9_500)
        schedule = sequential_lr([warmup, decay], milestones=[500])

    Args:
      schedulers: the members, with one ``base_lr``. ``cyclic_lr`` and ``one_cycle_lr`` have
        their own, and pass it on to the members after them.
      milestones: the step at which each member but the first takes over, ascending. Of members
        with the same milestone the last one takes over.
      total_steps: calls of ``scheduler.step()``.

    Returns:
      ``schedule(count)``; with a ``momentum`` if a member has one.

    Raises:
      TypeError: a member is not a schedule of this package.
      ValueError: the milestones do not fit; the members have several ``base_lr``; a chain or a
        sequence would take over at a milestone, where PyTorch raises; or a table is needed and
        there is no ``total_steps`` (raised by the call).
    """
    nodes = member_nodes("sequential_lr", schedulers)
    at = tuple(integer("milestone", m, low=0) for m in milestones)
    if len(at) != len(nodes) - 1:
        raise ValueError(
            f"every member but the first has a milestone; got {len(nodes)} members and "
            f"milestones={list(at)}."
        )
    if list(at) != sorted(at):
        raise ValueError(f"milestones must ascend; got milestones={list(at)}.")
    node = Sequence("sequential_lr", common_base_lr("sequential_lr", nodes), nodes, at)
    rates = [member.entered for member in schedulers]
    if not at or at[0] > 0:
        rates[0] = schedulers[0].rate if rates[0] else None
    if total_steps is None and all(rates):
        entered = [rate for rate in rates if rate]
        return Schedule(_joined(entered, at), node=node)
    offenders = sorted({n.name for n, rate in zip(nodes, rates, strict=True) if not rate})
    return tabulated(node, total_steps, f"{', '.join(offenders)} have no closed form here")


def _joined(rates: list[Rate], milestones: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    def rate(count: jax.Array) -> jax.Array:
        result = rates[0](count)
        for start, member in zip(milestones, rates[1:], strict=True):
            result = jnp.where(count >= start, member(jnp.maximum(count - start, 0)), result)
        return result

    return rate

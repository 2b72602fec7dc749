"""Several schedules at once."""

from __future__ import annotations

from collections.abc import Sequence as Several

from ._recursion import Chain, Node, common_base_lr
from ._schedule import Schedule, tabulated


def chained_scheduler(
    schedulers: Several[Schedule], total_steps: int | None = None
) -> Schedule:
    """``torch.optim.lr_scheduler.ChainedScheduler``.

    At every step each member computes a new rate from the one that the member before it has
    written. With members that multiply (step, exponential, linear, ...) this is the product of
    their factors; with one that does not, such as ``cosine_annealing_lr`` with ``eta_min > 0``,
    it is not, and a member that does not look at the current rate (``lambda_lr``,
    ``cyclic_lr``, ``one_cycle_lr``, ``cosine_annealing_warm_restarts``) overwrites what came
    before. optax has no counterpart.

    Args:
      schedulers: the members, with one ``base_lr``, in PyTorch's order. ``cyclic_lr`` and
        ``one_cycle_lr`` have their own, and pass it on to the members after them.
      total_steps: calls of ``scheduler.step()``. It may be left out of a chain that is itself a
        member.

    Returns:
      ``schedule(count)``, a table; with a ``momentum`` if a member has one.

    Raises:
      TypeError: a member is not a schedule of this package.
      ValueError: there are no members; they have several ``base_lr``; PyTorch itself raises
        within ``total_steps``; or there is no ``total_steps`` (raised by the call).
    """
    nodes = member_nodes("chained_scheduler", schedulers)
    base_lr = common_base_lr("chained_scheduler", nodes)
    why = "the members of a chain change one rate in turn"
    return tabulated(Chain("chained_scheduler", base_lr, nodes), total_steps, why)


def member_nodes(name: str, schedulers: Several[Schedule]) -> tuple[Node, ...]:
    """The members' recursions; raise if one has none."""
    if not schedulers:
        raise ValueError(f"{name} needs at least one member; got {schedulers!r}.")
    nodes = []
    for index, member in enumerate(schedulers):
        node = getattr(member, "node", None)
        if node is None:
            raise TypeError(
                f"member {index} of {name} must be a schedule made by instep.schedules; got "
                f"{member!r}. Apply per_epoch to the whole, not to a member; "
                f"reduce_lr_on_plateau needs a metric and cannot be a member."
            )
        nodes.append(node)
    return tuple(nodes)
